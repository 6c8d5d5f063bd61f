using System.Text;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>
/// A killed orchestrator's git child lives on for a moment and keeps writing. Before files it may be writing are repaired or
/// rebuilt, it must have ended; its environment tells it from everybody else's git.
/// </summary>
internal static class GitOrphans
{
    /// <summary>Waits until no git of an earlier orchestrator works on this folder. Linux only; elsewhere returns at once.</summary>
    /// <exception cref="DroverException">Timeout, naming the process.</exception>
    public static async Task WaitGoneAsync(string workTree, TimeProvider time, CancellationToken cancellationToken)
    {
        var mark = Encoding.UTF8.GetBytes($"DROVER_WORK_TREE={workTree}\0");
        var start = time.GetTimestamp();
        while (Find(mark) is { } pid)
        {
            if (time.GetElapsedTime(start) > TimeSpan.FromSeconds(60))
                throw new DroverException(ErrorCode.Timeout, $"git process {pid}, started by an earlier drover, still works in {workTree} after 60 s; end it and resume");
            await Task.Delay(TimeSpan.FromMilliseconds(20), time, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>A process whose current folder is inside <paramref name="folder"/>, or null.</summary>
    public static int? WorkingIn(string folder)
    {
        foreach (var pid in Processes())
        {
            if (Environment.ProcessId == pid)
                continue;
            var at = Try(() => new DirectoryInfo($"/proc/{pid}/cwd").LinkTarget);
            if (at is not null && (at == folder || at.StartsWith(folder + "/", StringComparison.Ordinal)))
                return pid;
        }
        return null;
    }

    /// <summary>Name of a process's program, for a person; never its arguments, which may hold secrets.</summary>
    public static string CommandOf(int pid)
    {
        var name = Try(() => File.ReadAllText($"/proc/{pid}/comm"))?.TrimEnd('\n') ?? "already gone";
        return new string([.. name.Select(c => char.IsControl(c) ? '?' : c)]);
    }

    /// <summary>A process that has <paramref name="file"/> open; null when there is none.</summary>
    public static int? OpenBy(string file)
    {
        foreach (var pid in Processes())
        {
            if (Try(() => Directory.EnumerateFiles($"/proc/{pid}/fd").Any(f => new FileInfo(f).LinkTarget == file)))
                return pid;
        }
        return null;
    }

    /// <summary>Every git that works on this repository now.</summary>
    public static IReadOnlySet<int> GitsOf(Repository repository)
    {
        var result = new HashSet<int>();
        foreach (var pid in Processes())
        {
            if (Try(() => File.ReadAllText($"/proc/{pid}/comm"))?.StartsWith("git", StringComparison.Ordinal) != true)
                continue;
            var at = Try(() => new DirectoryInfo($"/proc/{pid}/cwd").LinkTarget) ?? "";
            var environment = Encoding.UTF8.GetString(Try(() => File.ReadAllBytes($"/proc/{pid}/environ")) ?? []);
            var line = Encoding.UTF8.GetString(Try(() => File.ReadAllBytes($"/proc/{pid}/cmdline")) ?? []);
            if ((at + "/").StartsWith(repository.Root + "/", StringComparison.Ordinal) || environment.Contains(repository.CommonDirectory, StringComparison.Ordinal)
                || line.Contains(repository.Root, StringComparison.Ordinal) || IsLinked(repository, at))
                result.Add(pid);
        }
        return result;
    }

    // A git inside a worktree that lies outside the root.
    private static bool IsLinked(Repository repository, string folder) =>
        Checkouts.Read(repository).Any(c => (folder + "/").StartsWith(c.Path + "/", StringComparison.Ordinal));

    private static int? Find(byte[] mark)
    {
        foreach (var pid in Processes())
        {
            // Processes of other users cannot be read and are not ours.
            if (pid != Environment.ProcessId && Try(() => File.ReadAllText($"/proc/{pid}/comm"))?.StartsWith("git", StringComparison.Ordinal) == true
                && Try(() => File.ReadAllBytes($"/proc/{pid}/environ")) is { } environment && environment.AsSpan().IndexOf(mark) >= 0)
                return pid;
        }
        return null;
    }

    private static IEnumerable<int> Processes()
    {
        if (!OperatingSystem.IsLinux())
            yield break;
        foreach (var folder in Directory.EnumerateDirectories("/proc"))
        {
            if (int.TryParse(Path.GetFileName(folder), out var pid))
                yield return pid;
        }
    }

    // A process may end, or belong to somebody else, while it is looked at; both mean "not this one".
    private static T? Try<T>(Func<T> read)
    {
        try
        {
            return read();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return default;
        }
    }
}

using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Gates;

namespace Drover.Orchestrator.Runs;

/// <summary>
/// Set-up of a gate worktree: run once for a digest of the lock files; what it made is kept until the digest changes.
/// </summary>
internal sealed class GateSetup(RunServices services, int slot)
{
    private string Record => services.State("setup", $"gate-{slot}");

    /// <summary>The paths that set-up made and that are still good, as ignore patterns.</summary>
    public IReadOnlyList<string> Kept(string folder)
    {
        if (services.Settings.WorktreeSetup is null || !File.Exists(Record))
            return [];
        string[] lines = File.ReadAllLines(Record);
        return lines.Length > 0 && Directory.Exists(folder) ? lines[1..] : [];
    }

    /// <summary>Runs set-up when it has not run for these lock files; returns the result only when it did not pass.</summary>
    public async Task<GateResult?> RunAsync(string folder, string task, int attempt, CancellationToken cancellationToken)
    {
        if (services.Settings.WorktreeSetup is not { } text)
            return null;
        GateCommand command = GateCommand.Parse(text);
        string key = SetupCommand.KeyOf(command, folder);
        // Trusted only while everything that set-up made is there.
        if (File.Exists(Record) && File.ReadAllLines(Record) is [var recorded, .. var made0] && recorded == key
            && made0.All(m => Path.Exists(Path.Combine(folder, m.TrimStart('/').Replace("\\", "", StringComparison.Ordinal)))))
            return null;
        if (File.Exists(Record))
            File.Delete(Record);
        HashSet<string> before = Entries(folder);
        GateResult result = await services.Gates.SetUpAsync(command, folder, $"{task}-{attempt}.gate-setup.log", task, attempt, cancellationToken).ConfigureAwait(false);
        if (!result.Passed)
            return result;
        IEnumerable<string> made = Entries(folder).Where(e => !before.Contains(e) && (Parent(e) is not { } parent || before.Contains(parent)));
        PrivateFiles.Write(Record, string.Join('\n', [key, .. made.Select(m => "/" + Escape(m))]) + "\n");
        return null;
    }

    private static HashSet<string> Entries(string folder)
    {
        var options = new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.None, IgnoreInaccessible = true, MaxRecursionDepth = 4 };
        return [.. Directory.EnumerateFileSystemEntries(folder, "*", options).Select(e => Path.GetRelativePath(folder, e))];
    }

    private static string? Parent(string path) => Path.GetDirectoryName(path) is { Length: > 0 } parent ? parent : null;

    private static string Escape(string path) => path.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("*", "\\*", StringComparison.Ordinal)
        .Replace("?", "\\?", StringComparison.Ordinal).Replace("[", "\\[", StringComparison.Ordinal);
}

using System.Text;

namespace Drover.TestKit;

/// <summary>Looks through every process of the machine. Rows and reports say what should be; this says what is.</summary>
public static class ProcessScan
{
    /// <summary>Processes whose folder or environment lies in a folder; this process is not one of them.</summary>
    public static IReadOnlyList<(int Pid, string Command)> In(string root)
    {
        var found = new List<(int, string)>();
        foreach (string folder in Directory.EnumerateDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(folder), out int pid) || pid == Environment.ProcessId)
                continue;
            try
            {
                string? cwd = new FileInfo(Path.Combine(folder, "cwd")).LinkTarget;
                bool ours = cwd is not null && (cwd == root || cwd.StartsWith(root + "/", StringComparison.Ordinal));
                if (ours || File.ReadAllText(Path.Combine(folder, "environ")).Contains(root + "/", StringComparison.Ordinal))
                    found.Add((pid, File.ReadAllText(Path.Combine(folder, "cmdline"), Encoding.UTF8).Replace('\0', ' ')));
            }
            catch (IOException)
            {
                // It ended while we looked.
            }
            catch (UnauthorizedAccessException)
            {
                // Not ours to see, so not ours.
            }
        }
        return found;
    }

    /// <summary>Waits until no process lies in a folder any more.</summary>
    public static async Task NoneAsync(string root, string what)
    {
        try
        {
            await Eventually.TrueAsync(() => In(root).Count == 0, what, TimeSpan.FromSeconds(30));
        }
        catch (TimeoutException)
        {
            throw new TimeoutException($"{what}: still there: {string.Join(" | ", In(root).Select(p => $"{p.Pid} {p.Command}"))}");
        }
    }
}

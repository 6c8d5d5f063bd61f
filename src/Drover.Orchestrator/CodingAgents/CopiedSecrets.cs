namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// The values in files such as <c>.env</c> that <c>worktree.copy</c> brings into worktrees: agents may read them, logs must not
/// hold them.
/// </summary>
internal static class CopiedSecrets
{
    private const long LargestFile = 1 << 20;

    /// <summary>The values of <c>KEY=VALUE</c> lines (also with <c>export</c> and quotes).</summary>
    public static IReadOnlyList<string> In(string root, IReadOnlyList<string> files)
    {
        var values = new HashSet<string>(StringComparer.Ordinal);
        foreach (string file in files)
        {
            string path = Path.Combine(root, file);
            if (!File.Exists(path) || new FileInfo(path).Length > LargestFile)
                continue;
            foreach (string line in File.ReadLines(path))
            {
                int equals = line.IndexOf('=', StringComparison.Ordinal);
                if (equals <= 0 || line.TrimStart().StartsWith('#'))
                    continue;
                string value = line[(equals + 1)..].Trim().Trim('"', '\'');
                if (value.Length >= SecretRedactor.ShortestSecret)
                    values.Add(value);
            }
        }
        return [.. values];
    }
}

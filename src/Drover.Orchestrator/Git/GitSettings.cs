namespace Drover.Orchestrator.Git;

/// <summary>
/// The user's git configuration, read once and as data. Only the names in <see cref="ContentNames"/> reach Drover's own git,
/// by value; the texts of the user's ignore and attribute files are copied too, because agents' worktrees are judged by them.
/// </summary>
internal sealed class GitSettings
{
    /// <summary>Settings that change bytes or names and cannot name a program.</summary>
    public static readonly IReadOnlyList<string> ContentNames =
        ["core.autocrlf", "core.eol", "core.filemode", "core.symlinks", "core.ignorecase", "core.precomposeunicode", "core.trustctime", "core.checkstat"];

    private readonly IReadOnlyDictionary<string, string> _values;

    private GitSettings(IReadOnlyDictionary<string, string> values, string excludes, string exclude, string attributesFile, string attributes)
    {
        _values = values;
        ExcludesFile = excludes;
        InfoExclude = exclude;
        AttributesFile = attributesFile;
        InfoAttributes = attributes;
    }

    /// <summary>Text of the user's global ignore file.</summary>
    public string ExcludesFile { get; }

    /// <summary>Text of <c>info/exclude</c>.</summary>
    public string InfoExclude { get; }

    /// <summary>Text of the user's global attributes file.</summary>
    public string AttributesFile { get; }

    /// <summary>Text of <c>info/attributes</c>.</summary>
    public string InfoAttributes { get; }

    /// <summary>All names, lower case but for the middle part.</summary>
    public IEnumerable<KeyValuePair<string, string>> All => _values;

    /// <summary>The last value of a setting (name in lower case), or null.</summary>
    public string? Get(string name) => _values.GetValueOrDefault(name);

    /// <summary>True when a boolean setting is on.</summary>
    public bool IsOn(string name) => Get(name)?.ToLowerInvariant() is "" or "true" or "yes" or "on" or "1";

    public static async Task<GitSettings> ReadAsync(GitClient git, string root, string common, CancellationToken cancellationToken)
    {
        var scope = new GitScope { Directory = root, UserSettings = true, GitDir = common };
        // The scope tells the user's settings from the ones Drover itself gives on the command line.
        var scoped = await git.RunAsync(scope, ["config", "--list", "-z", "--includes", "--show-scope"], cancellationToken).ConfigureAwait(false);
        var values = new Dictionary<string, string>(StringComparer.Ordinal);
        var fields = scoped.Fields();
        for (var i = 0; i + 1 < fields.Length; i += 2)
        {
            if (fields[i] == "command")
                continue;
            var at = fields[i + 1].IndexOf('\n', StringComparison.Ordinal);
            // A name without "=" means true; git shows it without a value.
            values[at < 0 ? fields[i + 1] : fields[i + 1][..at]] = at < 0 ? "" : fields[i + 1][(at + 1)..];
        }
        return new GitSettings(values,
            ReadText(Global(git, values, "core.excludesfile", "ignore", root)), ReadText(Path.Combine(common, "info", "exclude")),
            ReadText(Global(git, values, "core.attributesfile", "attributes", root)), ReadText(Path.Combine(common, "info", "attributes")));
    }

    /// <summary>Replaces a leading <c>~/</c> by the user's home.</summary>
    public static string Expand(string path, GitClient git) =>
        path.StartsWith("~/", StringComparison.Ordinal) && git.User.GetValueOrDefault("HOME") is { Length: > 0 } home ? Path.Combine(home, path[2..]) : path;

    private static string? Global(GitClient git, Dictionary<string, string> values, string name, string file, string root)
    {
        if (values.TryGetValue(name, out var set))
            return set.Length == 0 ? null : Path.Combine(root, Expand(set, git));
        var folder = git.User.GetValueOrDefault("XDG_CONFIG_HOME") is { Length: > 0 } xdg ? xdg
            : git.User.GetValueOrDefault("HOME") is { Length: > 0 } home ? Path.Combine(home, ".config") : null;
        return folder is null ? null : Path.Combine(folder, "git", file);
    }

    private static string ReadText(string? path) => path is not null && File.Exists(path) ? File.ReadAllText(path) : "";
}

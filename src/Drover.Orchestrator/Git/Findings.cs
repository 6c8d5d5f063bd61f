using System.Globalization;
using System.Text;

namespace Drover.Orchestrator.Git;

/// <summary>Why an attempt's work must wait for a person.</summary>
internal enum FindingKind
{
    /// <summary>More paths deleted than allowed.</summary>
    Deletions,
    /// <summary>A file that looks like a key or credentials was added.</summary>
    Secret,
    /// <summary>A file above the size limit.</summary>
    LargeFile,
    /// <summary>A symbolic link whose target is outside the tree.</summary>
    SymlinkLeavesTree,
    /// <summary>A repository of its own inside the worktree; its files are not part of the commit.</summary>
    NestedRepository,
    /// <summary>A path that some file systems take for <c>.git</c>.</summary>
    GitLikePath,
    /// <summary>A file hidden by an ignore rule the agent added; it is not part of the commit.</summary>
    NewlyIgnored,
    /// <summary>A conflict marker left in a file that had a conflict.</summary>
    ConflictMarker,
    /// <summary>A content filter or submodule the repository did not have; Drover would handle its bytes wrong.</summary>
    Unsupported,
    /// <summary>A name that is not UTF-8 or a file that cannot be read.</summary>
    Unreadable,
}

/// <summary>One reason to wait, with the paths it is about.</summary>
internal sealed record Finding(FindingKind Kind, IReadOnlyList<string> Paths, string Text);

/// <summary>Limits of <see cref="WorkCommit"/>; the defaults are those of the settings with the same names.</summary>
internal sealed record FindingLimits
{
    /// <summary>Deleted paths that need no question.</summary>
    public int MaxDeletedPaths { get; init; } = 200;

    /// <summary>Share of all files that may be deleted; counts from <see cref="DeletedShareFrom"/> deletions on.</summary>
    public double MaxDeletedShare { get; init; } = 0.2;

    /// <summary>In a small repository one deleted file is a large share; below this number only deleting everything counts.</summary>
    public int DeletedShareFrom { get; init; } = 10;

    /// <summary>Bytes.</summary>
    public long MaxFileBytes { get; init; } = 10 << 20;
}

/// <summary>Judges what an attempt changed. Reads only blobs of the commit, never runs or renders anything.</summary>
internal static class Findings
{
    private const int MaxShownPaths = 50;
    private static readonly string[] Templates = [".example", ".sample", ".template", ".dist"];
    private static readonly string[] SecretNames = [".netrc", ".pgpass", ".git-credentials", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "credentials.json"];
    private static readonly string[] SecretEndings = [".pem", ".key", ".pfx", ".p12", ".jks", ".keystore", ".kdbx", ".ppk"];

    /// <summary>All findings that follow from the changed paths alone.</summary>
    public static async Task<List<Finding>> JudgeAsync(Repository repository, string root, IReadOnlyList<TreeChange> changes, int baseFiles, FindingLimits limits, CancellationToken cancellationToken)
    {
        var result = new List<Finding>();
        var deleted = changes.Where(c => c.Status == 'D').Select(c => c.Path).ToList();
        if (deleted.Count > limits.MaxDeletedPaths || (baseFiles > 0 && deleted.Count == baseFiles) || (deleted.Count >= limits.DeletedShareFrom && deleted.Count > baseFiles * limits.MaxDeletedShare))
            Add(FindingKind.Deletions, deleted, $"{deleted.Count} of {baseFiles} files deleted");
        var present = changes.Where(c => c.Status != 'D').ToList();
        Add(FindingKind.GitLikePath, Paths(present.Where(c => LooksLikeGit(c.Path))), "path that looks like .git");
        Add(FindingKind.Unreadable, Paths(present.Where(c => c.Path.Contains('\uFFFD', StringComparison.Ordinal))), "file name that is not UTF-8");
        var added = present.Where(c => c.Status is 'A' or 'R');
        var secrets = Paths(added.Where(c => IsSecretName(c.Path)));
        var files = present.Where(c => c.NewMode.StartsWith("100", StringComparison.Ordinal) && c.OldOid != c.NewOid).ToList();
        var sizes = files.ConvertAll(f => SizeOf(root, f.Path));
        Add(FindingKind.LargeFile, [.. files.Where((_, i) => sizes[i] > limits.MaxFileBytes).Select(c => c.Path)],
            string.Create(CultureInfo.InvariantCulture, $"file over {limits.MaxFileBytes >> 20} MiB"));
        var keys = await KeysAsync(repository, [.. files.Where((_, i) => sizes[i] is 0 or > 60 and < 1 << 20)], cancellationToken).ConfigureAwait(false);
        Add(FindingKind.Secret, [.. secrets.Union(keys).Order(StringComparer.Ordinal)], "file that looks like a key or credentials");
        Add(FindingKind.SymlinkLeavesTree, await LeavingLinksAsync(repository, present, cancellationToken).ConfigureAwait(false), "symbolic link to outside the tree");
        Add(FindingKind.Unsupported, await UnsupportedAsync(repository, present, cancellationToken).ConfigureAwait(false), "content filter or submodule, which drover does not support");
        return result;

        void Add(FindingKind kind, IReadOnlyList<string> paths, string text)
        {
            if (paths.Count > 0)
                result.Add(Make(kind, paths, text));
        }
    }

    /// <summary>A finding with a one-line text: what, and the first paths.</summary>
    public static Finding Make(FindingKind kind, IReadOnlyList<string> paths, string text)
    {
        var shown = paths.Take(3).Select(p => new string([.. p.Take(120).Select(c => char.IsControl(c) ? '?' : c)]));
        return new Finding(kind, [.. paths.Take(MaxShownPaths)], $"{text}: {string.Join(", ", shown)}{(paths.Count > 3 ? $" and {paths.Count - 3} more" : "")}");
    }

    /// <summary>True when a component of the path is <c>.git</c> on some file system (case folding, NTFS, HFS).</summary>
    public static bool LooksLikeGit(string path) => path.Split('/', '\\').Any(part =>
    {
        // HFS+ ignores these code points; NTFS drops trailing dots and spaces and everything after a colon.
        var name = new string([.. part.Where(c => c is not ((>= '\u200C' and <= '\u200F') or (>= '\u202A' and <= '\u202E') or (>= '\u206A' and <= '\u206F') or '\uFEFF'))]);
        var colon = name.IndexOf(':', StringComparison.Ordinal);
        name = (colon < 0 ? name : name[..colon]).TrimEnd('.', ' ');
        return name.Equals(".git", StringComparison.OrdinalIgnoreCase) || name.Equals("git~1", StringComparison.OrdinalIgnoreCase);
    });

    /// <summary>True when a symbolic link at <paramref name="path"/> (relative to the tree) points out of the tree.</summary>
    public static bool LeavesTree(string path, string target)
    {
        if (target.StartsWith('/') || target.Length == 0)
            return true;
        var depth = path.Count(c => c == '/');
        foreach (var part in target.Split('/'))
        {
            depth += part switch { "" or "." => 0, ".." => -1, _ => 1 };
            if (depth < 0)
                return true;
        }
        return false;
    }

    internal static bool IsSecretName(string path)
    {
        var name = path[(path.LastIndexOf('/') + 1)..].ToLowerInvariant();
        if (Templates.Any(t => name.EndsWith(t, StringComparison.Ordinal)))
            return false;
        return name == ".env" || name.StartsWith(".env.", StringComparison.Ordinal) || SecretNames.Contains(name)
            || SecretEndings.Any(e => name.EndsWith(e, StringComparison.Ordinal));
    }

    private static List<string> Paths(IEnumerable<TreeChange> changes) => [.. changes.Select(c => c.Path)];

    // From the disk, which saves a process; the agent has ended and line ends change a size by a few percent only.
    private static long SizeOf(string root, string path) => new FileInfo(Path.Combine(root, path)) is { Exists: true } file ? file.Length : 0;

    // A test key that the base had already is not news.
    private static async Task<List<string>> KeysAsync(Repository repository, List<TreeChange> files, CancellationToken cancellationToken)
    {
        var result = new List<string>();
        // In portions: a large change must not be held in memory at once.
        foreach (var part in files.Chunk(64))
        {
            var blobs = await Preflight.BlobsAsync(repository, [.. part.Select(f => f.NewOid)], cancellationToken).ConfigureAwait(false);
            for (var i = 0; i < part.Length; i++)
            {
                if (!HasKey(blobs[i]))
                    continue;
                var before = part[i].OldMode.StartsWith("100", StringComparison.Ordinal)
                    ? (await Preflight.BlobsAsync(repository, [part[i].OldOid], cancellationToken).ConfigureAwait(false))[0] : null;
                if (!HasKey(before))
                    result.Add(part[i].Path);
            }
        }
        return result;
    }

    private static bool HasKey(byte[]? blob) => blob is not null && blob.AsSpan().IndexOf("PRIVATE KEY-----"u8) >= 0;

    private static async Task<List<string>> LeavingLinksAsync(Repository repository, List<TreeChange> present, CancellationToken cancellationToken)
    {
        var links = present.Where(c => c.NewMode == "120000" && (c.OldOid != c.NewOid || c.From is not null)).ToList();
        if (links.Count == 0)
            return [];
        var targets = await Preflight.BlobsAsync(repository, [.. links.Select(l => l.NewOid)], cancellationToken).ConfigureAwait(false);
        return [.. links.Where((l, i) => LeavesTree(l.Path, Encoding.UTF8.GetString(targets[i] ?? []))).Select(l => l.Path)];
    }

    private static async Task<List<string>> UnsupportedAsync(Repository repository, List<TreeChange> present, CancellationToken cancellationToken)
    {
        var result = Paths(present.Where(c => c.Path == ".gitmodules"));
        var attributes = present.Where(c => c.NewMode.StartsWith("100", StringComparison.Ordinal) && (c.Path == ".gitattributes" || c.Path.EndsWith("/.gitattributes", StringComparison.Ordinal))).ToList();
        if (attributes.Count == 0)
            return result;
        var texts = await Preflight.BlobsAsync(repository, [.. attributes.Select(a => a.NewOid)], cancellationToken).ConfigureAwait(false);
        result.AddRange(attributes.Where((_, i) => Preflight.FilterOf(Encoding.UTF8.GetString(texts[i] ?? [])) is not null).Select(a => a.Path));
        return result;
    }
}

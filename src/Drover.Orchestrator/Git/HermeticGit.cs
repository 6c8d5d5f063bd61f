using System.Text;

namespace Drover.Orchestrator.Git;

/// <summary>
/// Drover's own bare git directory under <c>.drover/git</c>: no hooks, no configuration or attributes of the repository, its
/// objects only (G-15). Its files are compared before every use and rewritten when anybody changed them.
/// </summary>
internal sealed class HermeticGit(Repository repository)
{
    private readonly string _folder = Path.Combine(repository.StateDirectory, "git");
    private readonly Lock _lock = new();
    private KeyValuePair<string, byte[]>[]? _files;

    /// <summary>Folder of private index files, made when missing; names are the caller's.</summary>
    public string IndexDirectory
    {
        get
        {
            var folder = Path.Combine(_folder, "indexes");
            Posix.CreatePrivate(folder);
            return folder;
        }
    }

    /// <summary>Scope for commands on content.</summary>
    /// <param name="workTree">The folder whose files are read or written; null for commands on objects only.</param>
    /// <param name="indexFile">Full path of a private index; null when none is used.</param>
    public GitScope Scope(string? workTree = null, string? indexFile = null)
    {
        Ensure();
        return new GitScope
        {
            Directory = workTree ?? _folder,
            GitDir = _folder,
            WorkTree = workTree,
            IndexFile = indexFile,
            ObjectDirectory = Path.Combine(repository.CommonDirectory, "objects"),
            // Makes this git recognisable after its orchestrator was killed (see GitOrphans).
            Extra = workTree is null ? new Dictionary<string, string>() : new Dictionary<string, string> { ["DROVER_WORK_TREE"] = workTree },
        };
    }

    /// <summary>True for a complete index file: its last 20 bytes are the checksum of the others (or zero, when git was told to skip it).</summary>
    public static bool IsSound(string index)
    {
        if (!File.Exists(index) || File.ReadAllBytes(index) is not { Length: >= 32 } bytes)
            return false;
#pragma warning disable CA5350 // git's own checksum; nothing is protected by it
        var sum = System.Security.Cryptography.SHA1.HashData(bytes.AsSpan(..^20));
#pragma warning restore CA5350
        return bytes.AsSpan(^20..).SequenceEqual(sum) || !bytes.AsSpan(^20..).ContainsAnyExcept((byte)0);
    }

    /// <summary>Adds author, committer and date to a scope.</summary>
    public static GitScope As(GitScope scope, GitIdentity identity, DateTimeOffset date) => scope with
    {
        Extra = new Dictionary<string, string>(scope.Extra)
        {
            ["GIT_AUTHOR_NAME"] = identity.Name,
            ["GIT_AUTHOR_EMAIL"] = identity.Email,
            ["GIT_AUTHOR_DATE"] = GitDate.Format(date),
            ["GIT_COMMITTER_NAME"] = identity.Name,
            ["GIT_COMMITTER_EMAIL"] = identity.Email,
            ["GIT_COMMITTER_DATE"] = GitDate.Format(date),
        },
    };

    private void Ensure()
    {
        lock (_lock)
        {
            _files ??= Files();
            foreach (var folder in (string[])[_folder, Path.Combine(_folder, "objects"), Path.Combine(_folder, "refs"), Path.Combine(_folder, "info")])
                Posix.CreatePrivate(folder);
            foreach (var (path, content) in _files)
            {
                if (!File.Exists(path) || !File.ReadAllBytes(path).AsSpan().SequenceEqual(content))
                    Posix.WriteAtomic(path, content);
            }
            File.Delete(Path.Combine(_folder, "commondir"));
        }
    }

    private KeyValuePair<string, byte[]>[] Files()
    {
        var settings = repository.Settings;
        var config = new StringBuilder("[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tprotectNTFS = false\n\tsafecrlf = false\n\tlogAllRefUpdates = false\n");
        foreach (var name in GitSettings.ContentNames)
        {
            // Only plain words: a value can never start another section or name a program.
            if (settings.Get(name) is { } value && value.All(char.IsAsciiLetterOrDigit))
                config.Append('\t').Append(name["core.".Length..]).Append(value.Length == 0 ? "" : " = " + value).Append('\n');
        }
        var excludes = Path.Combine(_folder, "excludes");
        var attributes = Path.Combine(_folder, "attributes");
        config.Append("\texcludesFile = ").Append(Quote(excludes)).Append("\n\tattributesFile = ").Append(Quote(attributes)).Append('\n');
        return
        [
            Own("HEAD", "ref: refs/heads/none\n"),
            Own("config", config.ToString()),
            new(excludes, Encoding.UTF8.GetBytes(settings.ExcludesFile)),
            new(attributes, Encoding.UTF8.GetBytes(settings.AttributesFile)),
            Own("info/exclude", settings.InfoExclude.TrimEnd('\n') + "\n.drover/\n"),
            Own("info/attributes", settings.InfoAttributes),
        ];

        KeyValuePair<string, byte[]> Own(string name, string text) => new(Path.Combine(_folder, name), Encoding.UTF8.GetBytes(text));

        static string Quote(string s) => $"\"{s.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal)}\"";
    }
}

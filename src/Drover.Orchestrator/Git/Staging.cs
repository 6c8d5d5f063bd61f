using System.Text;

namespace Drover.Orchestrator.Git;

/// <summary>One entry that differs between two trees. <c>Status</c> is git's letter: A, M, D, T, or R for an exact rename.</summary>
internal sealed record TreeChange(char Status, string Path, string? From, string OldMode, string NewMode, string OldOid, string NewOid);

/// <summary>Stages folders and compares trees with Drover's own git.</summary>
internal static class Staging
{
    /// <summary>
    /// Stages every file, deletions included, except what git cannot or must not take. Returns the folders and paths left
    /// out: nested repositories without a commit, names that look like <c>.git</c>, and what cannot be read (a tracked one keeps its
    /// old content in the index).
    /// </summary>
    public static async Task<IReadOnlyList<string>> AddAllAsync(Repository repository, GitScope scope, CancellationToken cancellationToken)
    {
        string[] add = ["add", "-A"];
        var result = await repository.Git.TryAsync(scope, add, default, cancellationToken).ConfigureAwait(false);
        // A folder git cannot open is a warning only; which one is asked from the disk, never from the message.
        var closed = result.Error.Length == 0 ? [] : ClosedFolders(scope.WorkTree!);
        if (closed.Count > 0)
            closed = [.. closed.Except((await repository.Git.TryAsync(scope, ["check-ignore", "-z", "--stdin"], Encoding.UTF8.GetBytes(string.Join('\0', closed)), cancellationToken).ConfigureAwait(false)).Fields())];
        if (result.ExitCode == 0)
            return closed;
        var leaveOut = await UnaddableAsync(repository, scope, cancellationToken).ConfigureAwait(false);
        var specs = Encoding.UTF8.GetBytes(string.Concat(leaveOut.Select(p => $":(top,exclude,literal){p}\0").Prepend(":(top)\0")));
        string[] again = ["add", "-A", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul"];
        if ((await repository.Git.TryAsync(scope, again, specs, cancellationToken).ConfigureAwait(false)).ExitCode == 0)
            return [.. leaveOut, .. closed];
        var unread = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var ask in (string[][])[["ls-files", "-o", "-z", "--exclude-standard"], ["diff-files", "-z", "--name-only"]])
            unread.UnionWith((await repository.Git.RunAsync(scope, ask, cancellationToken).ConfigureAwait(false)).Fields().Select(p => p.TrimEnd('/')));
        unread.ExceptWith(leaveOut);
        return unread.Count == 0 ? throw GitClient.Failure(add, result) : [.. leaveOut, .. closed, .. unread];
    }

    /// <summary>Paths that differ between two trees, exact renames joined.</summary>
    public static async Task<IReadOnlyList<TreeChange>> DiffAsync(Repository repository, string oldTree, string newTree, bool renames, CancellationToken cancellationToken)
    {
        string[] ask = ["diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--full-index", renames ? "-M100%" : "--no-renames", oldTree, newTree];
        var fields = (await repository.Git.RunAsync(repository.Hermetic.Scope(), ask, cancellationToken).ConfigureAwait(false)).Fields();
        var result = new List<TreeChange>();
        for (var i = 0; i + 1 < fields.Length; i += 2)
        {
            // ":<old mode> <new mode> <old oid> <new oid> <status>" NUL path [NUL new path]
            var part = fields[i][1..].Split(' ');
            var renamed = part[4][0] is 'R' or 'C';
            result.Add(new TreeChange(part[4][0], renamed ? fields[i + 2] : fields[i + 1], renamed ? fields[i + 1] : null, part[0], part[1], part[2], part[3]));
            if (renamed)
                i++;
        }
        return result;
    }

    private static List<string> ClosedFolders(string root)
    {
        var result = new List<string>();
        var folders = new Stack<string>([root]);
        while (folders.TryPop(out var folder))
        {
            try
            {
                foreach (var child in Directory.EnumerateDirectories(folder).Where(d => Path.GetFileName(d) != ".git" && new DirectoryInfo(d).LinkTarget is null))
                    folders.Push(child);
            }
            catch (UnauthorizedAccessException)
            {
                result.Add(Path.GetRelativePath(root, folder));
            }
        }
        return result;
    }

    private static async Task<IReadOnlyList<string>> UnaddableAsync(Repository repository, GitScope scope, CancellationToken cancellationToken)
    {
        var list = await repository.Git.RunAsync(scope, ["ls-files", "-o", "-z", "--exclude-standard"], cancellationToken).ConfigureAwait(false);
        // A trailing slash marks a repository of its own.
        return [.. list.Fields().Where(p => p.EndsWith('/') || Findings.LooksLikeGit(p)).Select(p => p.TrimEnd('/'))];
    }
}

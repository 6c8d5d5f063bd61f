namespace Drover.Orchestrator.Git;

/// <summary>One entry that differs between two trees. <c>Status</c> is git's letter: A, M, D, T, or R for an exact rename.</summary>
internal sealed record TreeChange(char Status, string Path, string? From, string OldMode, string NewMode, string OldOid, string NewOid);

/// <summary>Stages folders and compares trees with Drover's own git.</summary>
internal static class Staging
{
    /// <summary>
    /// Stages every file, deletions included, except what git cannot or must not take. Returns the folders and paths left
    /// out: nested repositories without a commit, and names that look like <c>.git</c>.
    /// </summary>
    public static async Task<IReadOnlyList<string>> AddAllAsync(Repository repository, GitScope scope, IReadOnlyList<string> leaveOut, CancellationToken cancellationToken)
    {
        string[] add = ["add", "-A"];
        if (leaveOut.Count == 0)
        {
            var result = await repository.Git.TryAsync(scope, add, default, cancellationToken).ConfigureAwait(false);
            if (result.ExitCode == 0)
                return [];
            leaveOut = await UnaddableAsync(repository, scope, cancellationToken).ConfigureAwait(false);
            if (leaveOut.Count == 0)
                throw GitClient.Failure(add, result);
        }
        var specs = leaveOut.Select(p => $":(top,exclude,literal){p}\0").Prepend(":(top)\0");
        await repository.Git.RunAsync(scope, ["add", "-A", "--pathspec-from-file=-", "--pathspec-file-nul"],
            System.Text.Encoding.UTF8.GetBytes(string.Concat(specs)), cancellationToken).ConfigureAwait(false);
        return leaveOut;
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

    private static async Task<IReadOnlyList<string>> UnaddableAsync(Repository repository, GitScope scope, CancellationToken cancellationToken)
    {
        var list = await repository.Git.RunAsync(scope, ["ls-files", "-o", "-z", "--exclude-standard"], cancellationToken).ConfigureAwait(false);
        // A trailing slash marks a repository of its own.
        return [.. list.Fields().Where(p => p.EndsWith('/') || Findings.LooksLikeGit(p)).Select(p => p.TrimEnd('/'))];
    }
}

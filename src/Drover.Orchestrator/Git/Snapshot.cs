using System.Text;

namespace Drover.Orchestrator.Git;

/// <summary>What a snapshot kept.</summary>
/// <param name="Oid">The rescue commit; null when every byte was under a ref already.</param>
/// <param name="NotSaved">Ignored entries above the caps.</param>
/// <param name="Unsavable">Paths git cannot take; the folder must stay.</param>
internal sealed record Saved(string? Oid, IReadOnlyList<string> NotSaved, IReadOnlyList<string> Unsavable);

/// <summary>Puts everything a worktree holds under <c>refs/drover/rescue/…</c> before anything is removed (G-10).</summary>
internal static class Snapshot
{
    /// <summary>An ignored file or ignored folder larger than this is not saved (build output); bytes.</summary>
    public const long MaxIgnoredBytes = 1 << 20;

    /// <summary>An ignored folder with more files than this is not saved.</summary>
    public const int MaxIgnoredFiles = 100;

    private static readonly GitIdentity Author = new("Drover", "drover@localhost");

    /// <summary>Saves the files (untracked and small ignored ones too) and every commit only this worktree keeps alive.</summary>
    public static async Task<Saved> SaveAsync(Repository repository, AttemptName name, string path, string? gitDirectory, TimeProvider time, CancellationToken cancellationToken)
    {
        var index = Path.Combine(repository.Hermetic.IndexDirectory, name.Key + ".rescue");
        File.Delete(index);
        File.Delete(index + ".lock");
        var seed = Path.Combine(repository.Hermetic.IndexDirectory, name.Key + ".seed");
        if (HermeticGit.IsSound(seed))
            Posix.CopyAtomic(seed, index);
        var scope = repository.Hermetic.Scope(path, index);
        var unsavable = await Staging.AddAllAsync(repository, scope, cancellationToken).ConfigureAwait(false);
        var tree = await TreeAsync().ConfigureAwait(false);
        var (commits, trees, held) = await KnownAsync(repository, name, gitDirectory, cancellationToken).ConfigureAwait(false);
        var (ignored, notSaved) = await IgnoredAsync(repository, scope, path, cancellationToken).ConfigureAwait(false);
        if (ignored.Count > 0)
        {
            string[] add = ["add", "-f", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul"];
            if ((await repository.Git.TryAsync(scope, add, Literal(ignored), cancellationToken).ConfigureAwait(false)).ExitCode != 0)
                unsavable = [.. unsavable, .. ignored];
            tree = await TreeAsync().ConfigureAwait(false);
        }
        File.Delete(index);
        var unknown = await UnknownAsync(repository, commits, held, cancellationToken).ConfigureAwait(false);
        if (unknown.Count == 0 && (trees.Contains(tree) || held.Any(h => h.Tree == tree)))
            return new Saved(null, notSaved, unsavable);
        var oid = await CommitAsync(repository, name, tree, commits, held, time, cancellationToken).ConfigureAwait(false);
        return new Saved(oid, notSaved, unsavable);

        async Task<string> TreeAsync() => (await repository.Git.RunAsync(scope, ["write-tree"], cancellationToken).ConfigureAwait(false)).Text;
    }

    /// <summary>Saves the commits and the staged tree of a registration whose folder is gone or stays.</summary>
    public static async Task<Saved> SaveCommitsAsync(Repository repository, AttemptName name, string gitDirectory, TimeProvider time, CancellationToken cancellationToken)
    {
        var (commits, trees, held) = await KnownAsync(repository, name, gitDirectory, cancellationToken).ConfigureAwait(false);
        var index = Path.Combine(gitDirectory, "index");
        string? tree = null;
        if (File.Exists(index))
        {
            var copy = Path.Combine(repository.Hermetic.IndexDirectory, name.Key + ".rescue");
            File.Copy(index, copy, overwrite: true);
            // Fails for an unmerged or damaged index: then the commits are what can be saved.
            var written = await repository.Git.TryAsync(repository.Hermetic.Scope(null, copy), ["write-tree"], default, cancellationToken).ConfigureAwait(false);
            tree = written.ExitCode == 0 ? written.Text : null;
            File.Delete(copy);
        }
        var known = tree is null || trees.Contains(tree) || held.Any(h => h.Tree == tree);
        var unknown = await UnknownAsync(repository, commits, held, cancellationToken).ConfigureAwait(false);
        if (known && unknown.Count == 0)
            return new Saved(null, [], []);
        tree ??= trees[0];
        return new Saved(await CommitAsync(repository, name, tree, commits, held, time, cancellationToken).ConfigureAwait(false), [], []);
    }

    /// <summary>Keeps commits alive under the attempt's rescue ref.</summary>
    public static async Task AnchorAsync(Repository repository, AttemptName name, IReadOnlyList<string> commits, TimeProvider time, CancellationToken cancellationToken)
    {
        var (_, _, held) = await KnownAsync(repository, name, null, cancellationToken).ConfigureAwait(false);
        if ((await UnknownAsync(repository, commits, held, cancellationToken).ConfigureAwait(false)).Count == 0)
            return;
        var tree = (await repository.ResolveAsync([commits[0] + "^{tree}"], cancellationToken).ConfigureAwait(false))[0]!;
        await CommitAsync(repository, name, tree, commits, held, time, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Folders below <paramref name="path"/> that are repositories of their own.</summary>
    public static IReadOnlyList<string> NestedRepositories(string path)
    {
        var options = new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint, IgnoreInaccessible = true };
        return [.. Directory.EnumerateFileSystemEntries(path, ".git", options)
            .Select(g => Path.GetDirectoryName(g)!).Where(d => d != path).Select(d => Path.GetRelativePath(path, d)).Order(StringComparer.Ordinal)];
    }

    /// <summary>Paths as NUL-separated pathspecs that match themselves only.</summary>
    public static byte[] Literal(IEnumerable<string> paths) => Encoding.UTF8.GetBytes(string.Concat(paths.Select(p => $":(top,literal){p}\0")));

    private static async Task<(List<string> Small, List<string> Large)> IgnoredAsync(Repository repository, GitScope scope, string path, CancellationToken cancellationToken)
    {
        var list = await repository.Git.RunAsync(scope, ["ls-files", "-o", "-i", "--exclude-standard", "--directory", "-z"], cancellationToken).ConfigureAwait(false);
        List<string> small = [], large = [];
        foreach (var entry in list.Fields())
            (IsSmall(Path.Combine(path, entry)) ? small : large).Add(entry.TrimEnd('/'));
        return (small, large);
    }

    private static bool IsSmall(string entry)
    {
        if (!Directory.Exists(entry) || new DirectoryInfo(entry).LinkTarget is not null)
            return new FileInfo(entry) is { } file && (file.LinkTarget is not null || file.Length <= MaxIgnoredBytes);
        var options = new EnumerationOptions { RecurseSubdirectories = true, AttributesToSkip = FileAttributes.ReparsePoint, IgnoreInaccessible = true };
        var (files, bytes) = (0, 0L);
        foreach (var file in new DirectoryInfo(entry).EnumerateFiles("*", options))
        {
            bytes += file.Length;
            if (++files > MaxIgnoredFiles || bytes > MaxIgnoredBytes)
                return false;
        }
        return true;
    }

    // The commits this worktree stands on with their trees, and what the attempt's own refs hold; one process.
    private static async Task<(List<string> Commits, List<string> Trees, List<(string Oid, string Tree)> Held)> KnownAsync(Repository repository, AttemptName name, string? gitDirectory, CancellationToken cancellationToken)
    {
        var detached = gitDirectory is not null && Checkouts.Head(gitDirectory).Oid is { Length: 40 } oid && oid.All(char.IsAsciiHexDigitLower) ? oid : name.Branch;
        string[] names = [detached, name.Branch, name.AttemptRef, name.RescueRef];
        var found = await repository.ResolveAsync([.. names.SelectMany(n => (string[])[n + "^{commit}", n + "^{tree}"])], cancellationToken).ConfigureAwait(false);
        var pairs = Enumerable.Range(0, 4).Select(i => (Oid: found[2 * i], Tree: found[(2 * i) + 1])).ToList();
        var own = pairs.Take(2).Where(p => p.Oid is not null).Distinct().ToList();
        return ([.. own.Select(p => p.Oid!)], [.. own.Select(p => p.Tree!)], [.. pairs.Skip(2).Where(p => p.Oid is not null).Select(p => (p.Oid!, p.Tree!))]);
    }

    private static async Task<List<string>> UnknownAsync(Repository repository, IReadOnlyList<string> commits, List<(string Oid, string Tree)> held, CancellationToken cancellationToken)
    {
        if (commits.Count == 0 || commits.All(c => held.Any(h => h.Oid == c)))
            return [];
        // Reachable from the attempt, its rescue, or any branch of the user: kept without us.
        var unknown = new List<string>();
        foreach (var commit in commits.Where(c => held.All(h => h.Oid != c)))
        {
            string[] ask = ["rev-list", "--max-count=1", commit, "--not", "--exclude=drover/*", "--branches", "--tags", "--remotes", "--glob=refs/drover/attempts", "--glob=refs/drover/rescue"];
            var result = await repository.Git.RunAsync(repository.Real, ask, cancellationToken).ConfigureAwait(false);
            if (result.Output.Length > 0)
                unknown.Add(commit);
        }
        return unknown;
    }

    private static async Task<string> CommitAsync(Repository repository, AttemptName name, string tree, IReadOnlyList<string> commits, List<(string Oid, string Tree)> held, TimeProvider time, CancellationToken cancellationToken)
    {
        var old = (await repository.ResolveAsync([name.RescueRef + "^{commit}"], cancellationToken).ConfigureAwait(false))[0];
        var parents = commits.Concat(held.Select(h => h.Oid)).Distinct().ToList();
        var scope = HermeticGit.As(repository.Hermetic.Scope(), Author, time.GetUtcNow());
        List<string> arguments = ["commit-tree", tree];
        foreach (var parent in parents)
            arguments.AddRange(["-p", parent]);
        var message = Encoding.UTF8.GetBytes($"Saved by drover before removal: {name.Trailer}\n");
        var oid = (await repository.Git.RunAsync(scope, arguments, message, cancellationToken).ConfigureAwait(false)).Text;
        await Refs.MustMoveAsync(repository, name.RescueRef, oid, old, time, cancellationToken).ConfigureAwait(false);
        return oid;
    }
}

using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>
/// Folders in which gates run: plain folders with the exact files of one tree, set by Drover's git through a private index.
/// They have no <c>.git</c>: a gate's own git calls must not find one by walking up to the user's checkout either, which
/// is what <see cref="Environment"/> is for.
/// </summary>
internal sealed class GateWorktree(Repository repository, TimeProvider time, string? root = null)
{
    private readonly string _root = Posix.RealPath(root ?? Path.Combine(repository.StateDirectory, "worktrees"));

    /// <summary>Variables every gate process needs: git's search for a repository ends above the gate's folder.</summary>
    public IReadOnlyDictionary<string, string> Environment => new Dictionary<string, string> { ["GIT_CEILING_DIRECTORIES"] = _root };

    /// <summary>The folder of a slot (0, 1, …).</summary>
    public string PathOf(int slot) => Path.Combine(_root, $"gate-{slot}");

    /// <summary>
    /// Sets the slot's folder to a tree: every tracked file as in the tree, every other file gone except what
    /// <paramref name="keep"/> names (gitignore patterns). 2 git processes. No process may run in the folder.
    /// </summary>
    /// <returns>The folder.</returns>
    /// <exception cref="DroverException">InvalidInput: a keep pattern that would unprotect or is empty.</exception>
    public async Task<string> PrepareAsync(int slot, string treeOid, IReadOnlyList<string> keep, CancellationToken cancellationToken)
    {
        Repository.CheckOid(treeOid);
        if (keep.FirstOrDefault(k => string.IsNullOrWhiteSpace(k) || k[0] is '!' or '#' || k.Any(char.IsControl)) is { } bad)
            throw new DroverException(ErrorCode.InvalidInput, $"'{bad}' in gate.keep is not a usable pattern; write paths like node_modules/ or *.cache");
        var path = PathOf(slot);
        var index = Path.Combine(repository.Hermetic.IndexDirectory, $"gate-{slot}");
        using var held = await Posix.LockAsync(Path.Combine(repository.StateDirectory, $"gate-{slot}.lock"), TimeSpan.FromSeconds(60), time, cancellationToken).ConfigureAwait(false);
        await GitOrphans.WaitGoneAsync(path, time, cancellationToken).ConfigureAwait(false);
        if (new FileInfo(path) is { } odd && (odd.LinkTarget is not null || odd.Exists))
            File.Delete(path);
        Posix.CreatePrivate(path);
        File.Delete(index + ".lock");
        if (!await SetAsync(path, index, treeOid, keep, cancellationToken).ConfigureAwait(false))
        {
            // Modes or a damaged index that git cannot get past: start from nothing, kept files included.
            Posix.Delete(path);
            File.Delete(index);
            File.Delete(index + ".lock");
            Posix.CreatePrivate(path);
            if (!await SetAsync(path, index, treeOid, keep, cancellationToken).ConfigureAwait(false))
                throw new DroverException(ErrorCode.External, $"{path} cannot be set to tree {treeOid}; remove the folder and resume");
        }
        return path;
    }

    /// <summary>Removes a slot's folder; nothing in it is work.</summary>
    public void Remove(int slot)
    {
        Posix.Delete(PathOf(slot));
        File.Delete(Path.Combine(repository.Hermetic.IndexDirectory, $"gate-{slot}"));
    }

    private async Task<bool> SetAsync(string path, string index, string tree, IReadOnlyList<string> keep, CancellationToken cancellationToken)
    {
        var scope = repository.Hermetic.Scope(path, index);
        var read = await repository.Git.TryAsync(scope, ["read-tree", "--reset", "-u", tree], default, cancellationToken).ConfigureAwait(false);
        if (read.ExitCode != 0)
        {
            // A missing tree is the caller's error, not the folder's.
            return await repository.ResolveAsync([tree + "^{tree}"], cancellationToken).ConfigureAwait(false) is [null] ? throw GitClient.Failure(["read-tree", tree], read) : false;
        }
        string[] clean = ["clean", "-ffdxq", .. keep.SelectMany(k => (string[])["-e", k])];
        return (await repository.Git.TryAsync(scope, clean, default, cancellationToken).ConfigureAwait(false)).ExitCode == 0;
    }
}

using System.Text;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>An attempt's worktree.</summary>
/// <param name="Name">The attempt.</param>
/// <param name="Path">The folder.</param>
/// <param name="GitDirectory">Its git directory inside the repository.</param>
/// <param name="BaseOid">The commit it was made from.</param>
/// <param name="Adopted">True when it was there already, with whatever work is in it.</param>
/// <param name="QuarantinedAs">Where something unknown that stood in the way was moved; null when nothing did.</param>
internal sealed record Worktree(AttemptName Name, string Path, string GitDirectory, string BaseOid, bool Adopted, string? QuarantinedAs)
{
    /// <summary>The index as Drover wrote it at checkout: trusted stat data, which an agent's own index is not.</summary>
    public string SeedIndex(Repository repository) => System.IO.Path.Combine(repository.Hermetic.IndexDirectory, Name.Key + ".seed");

    /// <summary>
    /// Makes a private index for this folder: a copy of the seed, so that only changed files are read, or without a sound one
    /// (a power cut) an index of <paramref name="commit"/> without stat data.
    /// </summary>
    public async Task<GitScope> SeededAsync(Repository repository, string purpose, string commit, CancellationToken cancellationToken)
    {
        var index = System.IO.Path.Combine(repository.Hermetic.IndexDirectory, $"{Name.Key}.{purpose}");
        var scope = repository.Hermetic.Scope(Path, index);
        File.Delete(index + ".lock");
        File.Delete(index);
        if (HermeticGit.IsSound(SeedIndex(repository)))
            Posix.CopyAtomic(SeedIndex(repository), index);
        else
            await repository.Git.RunAsync(scope, ["read-tree", commit], cancellationToken).ConfigureAwait(false);
        return scope;
    }
}

/// <summary>What <see cref="Worktrees.RemoveAsync"/> did.</summary>
/// <param name="RescueOid">The commit that holds bytes found in no other ref; null when there were none.</param>
/// <param name="QuarantinedAs">Set instead of removal when the folder holds what no ref can keep: nested repositories, paths like <c>.GIT</c>.</param>
/// <param name="NotSaved">Ignored entries too large to save (build output); removed with the folder.</param>
internal sealed record WorktreeRemoval(string? RescueOid, string? QuarantinedAs, IReadOnlyList<string> NotSaved);

/// <summary>
/// Worktrees of attempts. A folder is ours to rebuild only while its <c>.making</c> file exists (written before anything is
/// created, deleted before the folder is handed over); everything else is adopted or moved aside, never deleted.
/// </summary>
internal sealed class Worktrees(Repository repository, TimeProvider time, string? root = null)
{
    private static readonly TimeSpan LockPatience = TimeSpan.FromSeconds(60);

    /// <summary>Folder of all worktrees; <c>.drover/worktrees</c> unless configured.</summary>
    public string Root { get; } = Posix.RealPath(root ?? Path.Combine(repository.StateDirectory, "worktrees"));

    private GitClient Git => repository.Git;

    /// <summary>Folder of an attempt, whether it exists or not.</summary>
    public string PathOf(AttemptName name) => Path.Combine(Root, name.Key);

    /// <summary>
    /// Makes the attempt's worktree at <paramref name="baseOid"/>, or adopts the one that is there: on any branch or a detached
    /// HEAD, as long as it builds on the base or holds work in no commit. 3 git processes when new, 2 when adopted. For steps
    /// that come before the agent has ended; from its commit on, use <see cref="OpenAsync"/>.
    /// </summary>
    public async Task<Worktree> EnsureAsync(AttemptName name, string baseOid, CancellationToken cancellationToken)
    {
        Repository.CheckOid(baseOid);
        using var held = await LockAsync(cancellationToken).ConfigureAwait(false);
        var path = PathOf(name);
        var making = path + ".making";
        string? quarantined = null;
        if (File.Exists(making))
        {
            await GitOrphans.WaitGoneAsync(path, time, cancellationToken).ConfigureAwait(false);
            Posix.Delete(path);
            await UnregisterAsync(path, cancellationToken).ConfigureAwait(false);
        }
        else if (await AdoptAsync(name, baseOid, cancellationToken).ConfigureAwait(false) is { } adopted)
        {
            return adopted;
        }
        else
        {
            quarantined = await QuarantineAsync(name, cancellationToken).ConfigureAwait(false);
        }
        Posix.CreatePrivate(Root);
        Posix.WriteAtomic(making, "drover\n"u8);
        GitCrash.Point("worktree.intent");
        var tip = await AddAsync(name, path, baseOid, cancellationToken).ConfigureAwait(false);
        GitCrash.Point("worktree.added");
        var directory = Checkouts.GitDirectoryOf(path) ?? throw new DroverException(ErrorCode.External, $"git worktree add made no {path}/.git");
        var worktree = new Worktree(name, path, directory, baseOid, false, quarantined);
        await PopulateAsync(worktree, tip, cancellationToken).ConfigureAwait(false);
        GitCrash.Point("worktree.populated");
        File.Delete(making);
        Posix.SyncFolder(Root);
        return worktree;
    }

    /// <summary>
    /// Finds the attempt's worktree as the agent left it: never makes, rebuilds or moves anything, and starts no process. Any HEAD
    /// will do, and so will a changed <c>.git</c> file. The order after an agent has ended: <c>OpenAsync</c>, then
    /// <see cref="ControlFiles.CaptureAsync"/> (gives back what was stored before the agent), <see cref="ControlFiles.CompareAsync"/>,
    /// <see cref="ControlFiles.RestoreAsync"/> (puts <c>.git</c> back), <see cref="WorkCommit.CreateAsync"/>. A fault is tampering even
    /// when the comparison finds nothing.
    /// </summary>
    public async Task<WorktreeState> OpenAsync(AttemptName name, string baseOid, CancellationToken cancellationToken)
    {
        Repository.CheckOid(baseOid);
        using var held = await LockAsync(cancellationToken).ConfigureAwait(false);
        var path = PathOf(name);
        // Through a link the files of any other folder would be taken for the agent's work.
        if (!Directory.Exists(path) || new DirectoryInfo(path).LinkTarget is not null)
            return new WorktreeState.Missing(WorktreeLoss.Folder, $"{path} was deleted or replaced while the agent ran; commits it made are on {name.Branch}");
        if (File.Exists(path + ".making"))
            return new WorktreeState.Missing(WorktreeLoss.Unfinished, $"{path} was never finished; start the attempt's worktree step again");
        var link = Checkouts.GitDirectoryOf(path);
        if (Registration(path) is not { } found)
            return new WorktreeState.Open(new Worktree(name, path, RegistrationOf(name, link), baseOid, true, null), WorktreeFault.RegistrationGone);
        var fault = link == found.GitDirectory ? WorktreeFault.None : WorktreeFault.LinkNotOurs;
        return new WorktreeState.Open(new Worktree(name, path, found.GitDirectory, baseOid, true, null), fault);
    }

    /// <summary>Attempts that have a folder or a registration here.</summary>
    public IReadOnlyList<AttemptName> List()
    {
        var keys = Directory.Exists(Root) ? Directory.GetDirectories(Root).Select(d => Path.GetFileName(d)!) : [];
        var registered = Checkouts.Read(repository).Where(c => Path.GetDirectoryName(c.Path) == Root).Select(c => Path.GetFileName(c.Path));
        return [.. keys.Concat(registered).Distinct().Select(AttemptName.Parse).OfType<AttemptName>().OrderBy(n => n.Key, StringComparer.Ordinal)];
    }

    /// <summary>
    /// Removes an attempt's worktree and branch after every byte is under a ref. Safe to repeat; nothing there = nothing to do.
    /// </summary>
    /// <exception cref="DroverException">Conflict: a process still works inside.</exception>
    public async Task<WorktreeRemoval> RemoveAsync(AttemptName name, CancellationToken cancellationToken)
    {
        using var held = await LockAsync(cancellationToken).ConfigureAwait(false);
        var path = PathOf(name);
        string? rescue = null, quarantined = null;
        IReadOnlyList<string> notSaved = [];
        var registration = Registration(path);
        if (Directory.Exists(path))
        {
            if (GitOrphans.WorkingIn(path) is { } pid)
                throw new DroverException(ErrorCode.Conflict, $"process {pid} ({GitOrphans.CommandOf(pid)}) still works in {path}; end it, then repeat");
            // A folder .git is a repository an agent made in place of ours: no ref of ours can hold its commits.
            if (Snapshot.NestedRepositories(path).Count > 0 || Directory.Exists(Path.Combine(path, ".git")))
            {
                quarantined = await QuarantineAsync(name, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                var saved = await Snapshot.SaveAsync(repository, name, path, registration?.GitDirectory, time, cancellationToken).ConfigureAwait(false);
                (rescue, notSaved) = (saved.Oid, saved.NotSaved);
                GitCrash.Point("remove.saved");
                if (saved.Unsavable.Count > 0)
                {
                    quarantined = await QuarantineAsync(name, cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    // One rename makes "gone" true at an instant: a half-deleted folder must never be taken for an agent's deletions.
                    Posix.CreatePrivate(Trash);
                    Directory.Move(path, Path.Combine(Trash, $"{name.Key}-{Guid.NewGuid():N}"));
                    GitCrash.Point("remove.moved");
                }
            }
        }
        else if (registration is not null)
        {
            rescue = (await Snapshot.SaveCommitsAsync(repository, name, registration.GitDirectory, time, cancellationToken).ConfigureAwait(false)).Oid;
        }
        await UnregisterAsync(path, cancellationToken).ConfigureAwait(false);
        GitCrash.Point("remove.unregistered");
        await DeleteBranchAsync(name, cancellationToken).ConfigureAwait(false);
        foreach (var leftover in (string[])[path + ".making", SeedOf(name), Landing.HalfGivenFile(repository, name)])
            File.Delete(leftover);
        EmptyTrash();
        return new WorktreeRemoval(rescue, quarantined, notSaved);
    }

    /// <summary>Deletes folders whose content was saved before they were moved to the trash.</summary>
    public void EmptyTrash()
    {
        if (Directory.Exists(Trash))
            Posix.Delete(Trash);
    }

    /// <summary>Moves an attempt's worktree aside, keeping every byte and every commit; null when there was nothing.</summary>
    internal async Task<string?> QuarantineAsync(AttemptName name, CancellationToken cancellationToken)
    {
        var path = PathOf(name);
        var registration = Registration(path);
        if (registration is not null)
        {
            // The folder stays as it is; only what the registration alone kept alive needs a ref.
            await Snapshot.SaveCommitsAsync(repository, name, registration.GitDirectory, time, cancellationToken).ConfigureAwait(false);
        }
        string? moved = null;
        if (Posix.Exists(path) && !IsEmptyShell(path))
        {
            Posix.CreatePrivate(Quarantine);
            var k = 1;
            while (Posix.Exists(moved = Path.Combine(Quarantine, $"{name.Key}-{k}")))
                k++;
            Directory.Move(path, moved);
        }
        else
        {
            Posix.Delete(path);
        }
        GitCrash.Point("quarantine.moved");
        await UnregisterAsync(path, cancellationToken).ConfigureAwait(false);
        return moved;
    }

    private string Trash => Path.Combine(Root, ".trash");

    private string Quarantine => Path.Combine(Root, ".quarantine");

    private string SeedOf(AttemptName name) => Path.Combine(repository.Hermetic.IndexDirectory, name.Key + ".seed");

    private async Task<IDisposable> LockAsync(CancellationToken cancellationToken) =>
        await Posix.LockAsync(Path.Combine(repository.StateDirectory, "worktrees.lock"), LockPatience, time, cancellationToken).ConfigureAwait(false);

    // An agent can write a registration's back link, so two may name this folder; the one git named after it goes first.
    private Checkout? Registration(string path) => Checkouts.Read(repository).Skip(1).Where(c => c.Path == path)
        .OrderBy(c => Path.GetFileName(c.GitDirectory) == Path.GetFileName(path) ? 0 : 1).FirstOrDefault();

    // Where the registration was, or still is with a back link that names another folder: the .git file tells when it is plausible.
    private string RegistrationOf(AttemptName name, string? link)
    {
        var all = Path.Combine(repository.CommonDirectory, "worktrees");
        return link is not null && Path.GetDirectoryName(link) == all && Path.GetFileName(link).StartsWith(name.Key, StringComparison.Ordinal)
            && Path.GetFileName(link)[name.Key.Length..].All(char.IsAsciiDigit) ? link : Path.Combine(all, name.Key);
    }

    private async Task<Worktree?> AdoptAsync(AttemptName name, string baseOid, CancellationToken cancellationToken)
    {
        var path = PathOf(name);
        // "initializing" is what a killed `worktree add` leaves; any other lock was set by an agent or a person.
        if (Registration(path) is not { LockReason: not "initializing" } found || !Directory.Exists(path) || new DirectoryInfo(path).LinkTarget is not null)
            return null;
        var index = Path.Combine(found.GitDirectory, "index");
        if (!File.Exists(index) && IsEmptyShell(path))
            return null;
        var head = Checkouts.Head(found.GitDirectory);
        var tip = (head.Branch ?? head.Oid) is { Length: > 0 } at && !at.Any(char.IsWhiteSpace) ? await repository.ResolveAsync(at, cancellationToken).ConfigureAwait(false) : null;
        if ((tip is null || !await repository.IsAncestorAsync(baseOid, tip, cancellationToken).ConfigureAwait(false))
            && !await HoldsMoreThanAsync(name, path, tip ?? baseOid, cancellationToken).ConfigureAwait(false))
            return null;
        // An agent killed inside its own git leaves this lock; nobody works here between two turns.
        await StaleLock.TryClearAsync(repository, index + ".lock", time, cancellationToken).ConfigureAwait(false);
        if (!File.Exists(index) && HermeticGit.IsSound(SeedOf(name)))
            Posix.CopyAtomic(SeedOf(name), index);
        // A .git file that says something is left for ControlFiles to name and put back; an empty one says nothing.
        var link = new FileInfo(Path.Combine(path, ".git"));
        if (!Posix.Exists(link.FullName) || link is { Exists: true, LinkTarget: null, Length: 0 })
            Posix.WriteAtomic(link.FullName, Encoding.UTF8.GetBytes($"gitdir: {found.GitDirectory}\n"));
        return new Worktree(name, path, found.GitDirectory, baseOid, true, null);
    }

    // True when the folder's files are not exactly those of the commit.
    private async Task<bool> HoldsMoreThanAsync(AttemptName name, string path, string commit, CancellationToken cancellationToken)
    {
        var index = Path.Combine(repository.Hermetic.IndexDirectory, name.Key + ".look");
        foreach (var file in (string[])[index, index + ".lock"])
            File.Delete(file);
        var scope = repository.Hermetic.Scope(path, index);
        await Git.RunAsync(scope, ["read-tree", commit], cancellationToken).ConfigureAwait(false);
        var leftOut = await Staging.AddAllAsync(repository, scope, cancellationToken).ConfigureAwait(false);
        var tree = (await Git.RunAsync(scope, ["write-tree"], cancellationToken).ConfigureAwait(false)).Text;
        File.Delete(index);
        return leftOut.Count > 0 || (await repository.ResolveAsync([commit + "^{tree}"], cancellationToken).ConfigureAwait(false))[0] != tree;
    }

    // Returns the commit the folder is at.
    private async Task<string> AddAsync(AttemptName name, string path, string baseOid, CancellationToken cancellationToken)
    {
        var branch = name.Branch["refs/heads/".Length..];
        var tip = await repository.ResolveAsync(name.Branch, cancellationToken).ConfigureAwait(false);
        string[] add;
        if (tip is null)
        {
            add = ["worktree", "add", "--no-checkout", "--no-track", "-b", branch, "--", path, baseOid];
        }
        else
        {
            // The branch outlived its folder. Its commits stay: on it when they build on the base, else under the rescue ref.
            if (!await repository.IsAncestorAsync(baseOid, tip, cancellationToken).ConfigureAwait(false))
            {
                await Snapshot.AnchorAsync(repository, name, [tip], time, cancellationToken).ConfigureAwait(false);
                await Refs.MustMoveAsync(repository, name.Branch, baseOid, tip, time, cancellationToken).ConfigureAwait(false);
                tip = baseOid;
            }
            add = ["worktree", "add", "--no-checkout", "--", path, branch];
        }
        // No checkout by git itself: it would run the smudge filters of a configuration agents can write.
        await Git.RunAsync(repository.Real, add, cancellationToken).ConfigureAwait(false);
        return tip ?? baseOid;
    }

    private async Task PopulateAsync(Worktree worktree, string oid, CancellationToken cancellationToken)
    {
        var index = Path.Combine(repository.Hermetic.IndexDirectory, worktree.Name.Key + ".new");
        foreach (var file in (string[])[index, index + ".lock"])
            File.Delete(file);
        await Git.RunAsync(repository.Hermetic.Scope(worktree.Path, index), ["read-tree", "--reset", "-u", oid], cancellationToken).ConfigureAwait(false);
        Posix.CopyAtomic(index, worktree.SeedIndex(repository));
        File.Move(index, Path.Combine(worktree.GitDirectory, "index"), overwrite: true);
    }

    // --force twice also removes what a killed `worktree add` left locked as "initializing".
    private async Task UnregisterAsync(string path, CancellationToken cancellationToken)
    {
        if (Registration(path) is not { } found)
            return;
        string[] remove = ["worktree", "remove", "--force", "--force", "--", path];
        var result = await Git.TryAsync(repository.Real, remove, default, cancellationToken).ConfigureAwait(false);
        if (Registration(path) is null)
            return;
        // A registration git itself cannot read any more (killed before all its files were written) has no index or HEAD worth keeping.
        if (Path.GetDirectoryName(found.GitDirectory) != Path.Combine(repository.CommonDirectory, "worktrees"))
            throw GitClient.Failure(remove, result);
        Posix.Delete(found.GitDirectory);
    }

    private async Task DeleteBranchAsync(AttemptName name, CancellationToken cancellationToken)
    {
        var refs = await repository.ResolveAsync([name.Branch + "^{commit}", name.AttemptRef + "^{commit}", name.RescueRef + "^{commit}"], cancellationToken).ConfigureAwait(false);
        if (refs[0] is not { } tip)
            return;
        var kept = false;
        foreach (var holder in refs.Skip(1).OfType<string>())
            kept = kept || await repository.IsAncestorAsync(tip, holder, cancellationToken).ConfigureAwait(false);
        if (!kept)
            await Snapshot.AnchorAsync(repository, name, [tip], time, cancellationToken).ConfigureAwait(false);
        await Refs.MustMoveAsync(repository, name.Branch, null, tip, time, cancellationToken).ConfigureAwait(false);
    }

    // What a killed `worktree add --no-checkout` leaves: at most its .git file.
    private static bool IsEmptyShell(string path) =>
        Directory.Exists(path) && new DirectoryInfo(path).LinkTarget is null
        && Directory.EnumerateFileSystemEntries(path).All(e => Path.GetFileName(e) == ".git" && File.Exists(e));
}

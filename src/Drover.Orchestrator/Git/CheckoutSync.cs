using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>How a landing ended.</summary>
internal abstract record LandResult
{
    /// <summary>The target holds the commit. <paramref name="Left"/>: paths the user edited in the very moment; theirs were kept.</summary>
    public sealed record Landed(IReadOnlyList<string> Left) : LandResult;

    /// <summary>The target moved; merge again onto its new tip.</summary>
    public sealed record Stale : LandResult;

    /// <summary>The commit is not in the repository (any more); build it again.</summary>
    public sealed record ObjectMissing : LandResult;

    /// <summary>The target is checked out and the checkout cannot follow without touching the user's bytes; nothing moved.</summary>
    public sealed record WaitingCheckout(string Checkout, IReadOnlyList<string> Paths, string Command) : LandResult;

    /// <summary>Another git holds a lock; nothing moved.</summary>
    public sealed record WaitingLock(string File) : LandResult;
}

/// <summary>What repairing a half-done checkout update found; null journal = nothing to repair.</summary>
/// <param name="Checkout">The folder.</param>
/// <param name="Left">Paths with bytes of the user, left as they are.</param>
/// <param name="Waiting">A lock somebody else holds; call again later. Null when the repair is complete.</param>
internal sealed record SyncRepair(string Checkout, IReadOnlyList<string> Left, string? Waiting);

/// <summary>What was intended, written before anything is touched.</summary>
internal sealed record SyncJournal(string Path, string GitDirectory, string Target, string Old, string New, string Nonce);

[JsonSerializable(typeof(SyncJournal))]
internal sealed partial class GitJson : JsonSerializerContext;

/// <summary>
/// The whole landing: moves the target by compare-and-swap and, where the target is checked out, lets that checkout follow
/// when nothing of the user is in the way (G-05), otherwise holds before anything moved. While the ref moves the checkout's
/// <c>index.lock</c> is ours, so that no user commit can be made from files of the old tip. The lock carries a nonce from the
/// journal: only a lock with that nonce is ever removed.
/// </summary>
internal sealed class CheckoutSync(Repository repository, TimeProvider time)
{
    private static readonly TimeSpan LandingPatience = TimeSpan.FromSeconds(120);
    // While the user's index.lock is ours a held ref lock is not waited for any longer than this; the landing lets go and tries again.
    private static readonly TimeSpan LockedPatience = TimeSpan.FromSeconds(2);
    private readonly CheckoutRepair _repair = new(repository);

    private string JournalFile => Path.Combine(repository.StateDirectory, "checkout-sync.json");

    private GitClient Git => repository.Git;

    /// <summary>
    /// Lands <paramref name="newOid"/>. Safe to repeat after any kill: a commit that is in the target already is Landed. 2 git
    /// processes when the target is checked out nowhere, 5 when it is.
    /// </summary>
    /// <param name="target">Full branch name.</param>
    /// <param name="oldOid">The tip the commit was built on.</param>
    /// <param name="newOid">The commit.</param>
    /// <param name="patience">How long a lock held by somebody else is waited for.</param>
    /// <param name="cancellationToken">
    /// Ends the waits. Not obeyed between the lock on the user's index and its release: a landing that has begun to move the ref
    /// is finished and reported, so a result may come in spite of a cancelled token.
    /// </param>
    public async Task<LandResult> LandAsync(string target, string oldOid, string newOid, TimeSpan patience, CancellationToken cancellationToken)
    {
        using var held = await LockAsync(cancellationToken).ConfigureAwait(false);
        if (await RepairLockedAsync(cancellationToken).ConfigureAwait(false) is { Waiting: { } busy })
            return new LandResult.WaitingLock(busy);
        var start = time.GetTimestamp();
        while (true)
        {
            var found = await repository.ResolveAsync([target + "^{commit}", Repository.CheckOid(newOid) + "^{commit}"], cancellationToken).ConfigureAwait(false);
            var tip = found[0] ?? throw new DroverException(ErrorCode.NotFound, $"{target} does not exist in {repository.Root} any more; restore it or choose another target");
            if (found[1] is null)
                return new LandResult.ObjectMissing();
            if (tip != oldOid)
                return await repository.IsAncestorAsync(newOid, tip, cancellationToken).ConfigureAwait(false) ? new LandResult.Landed([]) : new LandResult.Stale();
            var checkouts = Present(target);
            if (Blocked(checkouts) is { } blocked)
                return blocked;
            if (checkouts.Count == 0)
                return Result(target, await Refs.MoveAsync(repository, target, newOid, oldOid, patience, time, cancellationToken).ConfigureAwait(false));
            var result = await FollowAsync(checkouts[0], target, oldOid, newOid, patience, cancellationToken).ConfigureAwait(false);
            if (result is not null && (result is not LandResult.WaitingLock || time.GetElapsedTime(start) >= patience))
                return result;
            if (result is null && time.GetElapsedTime(start) >= patience + TimeSpan.FromSeconds(10))
                return new LandResult.WaitingLock(Path.Combine(checkouts[0].GitDirectory, "index"));
            await Task.Delay(TimeSpan.FromMilliseconds(50), time, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// Says whether the target's checkout could follow now, so that a landing can be held before anything is recorded. Touches
    /// nothing of the user: no lock, no journal. 3 git processes when the target is checked out, else 0. <see cref="LandAsync"/>
    /// looks again, and may still hold. Call <see cref="RepairAsync"/> first: files of a half-done landing look like edits.
    /// </summary>
    /// <returns>Null: nobody has it checked out, it can follow, or the landing would not come that far (stale, object missing).</returns>
    public async Task<LandResult.WaitingCheckout?> ProbeAsync(string target, string oldOid, string newOid, CancellationToken cancellationToken)
    {
        var checkouts = Present(target);
        if (checkouts.Count == 0)
            return null;
        var found = await repository.ResolveAsync([target + "^{commit}", Repository.CheckOid(newOid) + "^{commit}"], cancellationToken).ConfigureAwait(false);
        if (found[0] != Repository.CheckOid(oldOid) || found[1] is null)
            return null;
        if (Blocked(checkouts) is { } blocked)
            return blocked;
        var copy = Path.Combine(repository.Hermetic.IndexDirectory, $"probe-{Guid.NewGuid():N}");
        try
        {
            Copy(Path.Combine(checkouts[0].GitDirectory, "index"), copy);
            var changes = await Staging.DiffAsync(repository, oldOid, newOid, renames: false, cancellationToken).ConfigureAwait(false);
            return await HeldAsync(repository.Hermetic.Scope(checkouts[0].Path, copy), checkouts[0], changes, oldOid, newOid, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            File.Delete(copy + ".lock");
            File.Delete(copy);
        }
    }

    /// <summary>Finishes what a killed landing left half done; call at every start. Null = nothing was.</summary>
    public async Task<SyncRepair?> RepairAsync(CancellationToken cancellationToken)
    {
        if (!File.Exists(JournalFile))
            return null;
        using var held = await LockAsync(cancellationToken).ConfigureAwait(false);
        return await RepairLockedAsync(cancellationToken).ConfigureAwait(false);
    }

    private async Task<IDisposable> LockAsync(CancellationToken cancellationToken) =>
        await Posix.LockAsync(Path.Combine(repository.StateDirectory, "landing.lock"), LandingPatience, time, cancellationToken).ConfigureAwait(false);

    private List<Checkout> Present(string target) => [.. Checkouts.Of(repository, target).Where(c => c.IsPresent)];

    private static LandResult.WaitingCheckout? Blocked(List<Checkout> checkouts)
    {
        if (checkouts.FirstOrDefault(c => c.Operation is not null) is { } unfinished)
            return new LandResult.WaitingCheckout(unfinished.Path, [], $"git -C {Quote(unfinished.Path)} {unfinished.Operation} --abort (or finish it)");
        if (checkouts.Count > 1)
            return new LandResult.WaitingCheckout(checkouts[1].Path, [], $"git -C {Quote(checkouts[1].Path)} switch --detach (the branch is checked out twice)");
        return checkouts is [var only] && !File.Exists(Path.Combine(only.GitDirectory, "index"))
            ? new LandResult.WaitingCheckout(only.Path, [], $"git -C {Quote(only.Path)} reset (the checkout has no index)") : null;
    }

    // Null: the checkout changed while we looked; look again.
    private async Task<LandResult?> FollowAsync(Checkout checkout, string target, string oldOid, string newOid, TimeSpan patience, CancellationToken cancellationToken)
    {
        var index = Path.Combine(checkout.GitDirectory, "index");
        var copy = CheckoutRepair.CopyOf(checkout.GitDirectory);
        var before = Copy(index, copy);
        SyncJournal journal;
        IReadOnlyList<TreeChange> changes;
        var scope = repository.Hermetic.Scope(checkout.Path, copy);
        try
        {
            changes = await Staging.DiffAsync(repository, oldOid, newOid, renames: false, cancellationToken).ConfigureAwait(false);
            if (await HeldAsync(scope, checkout, changes, oldOid, newOid, cancellationToken).ConfigureAwait(false) is { } waiting)
            {
                File.Delete(copy);
                return waiting;
            }
            cancellationToken.ThrowIfCancellationRequested();
            journal = new SyncJournal(checkout.Path, checkout.GitDirectory, target, oldOid, newOid, Guid.NewGuid().ToString("N"));
        }
        catch (Exception e) when (e is not GitCrashException)
        {
            File.Delete(copy + ".lock");
            File.Delete(copy);
            throw;
        }
        try
        {
            return await FollowLockedAsync(journal, scope, before, changes, patience, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not GitCrashException)
        {
            // The ref is read back, and the checkout follows it or is let go. When git fails here too the journal stays and says so.
            await ReleaseAsync().ConfigureAwait(false);
            throw;
        }
    }

    private async Task<LandResult?> FollowLockedAsync(SyncJournal journal, GitScope scope, byte[] before, IReadOnlyList<TreeChange> changes, TimeSpan patience, CancellationToken cancellationToken)
    {
        Posix.WriteAtomic(JournalFile, JsonSerializer.SerializeToUtf8Bytes(journal, GitJson.Default.SyncJournal));
        GitCrash.Point("land.journal");
        if (!CheckoutRepair.TryLock(journal))
        {
            Forget(journal);
            return new LandResult.WaitingLock(Path.Combine(journal.GitDirectory, "index.lock"));
        }
        GitCrash.Point("land.locked");
        // From here no git of the user can commit, stage or switch in this checkout; what it did before shows in these.
        if (!File.ReadAllBytes(Path.Combine(journal.GitDirectory, "index")).AsSpan().SequenceEqual(before)
            || Checkouts.Of(repository, journal.Target) is not [{ Operation: null } now] || now.GitDirectory != journal.GitDirectory)
        {
            Forget(journal);
            return null;
        }
        if (cancellationToken.IsCancellationRequested)
        {
            Forget(journal);
            throw new OperationCanceledException(cancellationToken);
        }
        // Not cancelled: an update-ref killed here may have moved the ref or not, and the user's checkout would stay locked.
        var move = await Refs.MoveAsync(repository, journal.Target, journal.New, journal.Old, patience < LockedPatience ? patience : LockedPatience, time, CancellationToken.None).ConfigureAwait(false);
        if (move != RefMove.Moved)
        {
            Forget(journal);
            return Result(journal.Target, move);
        }
        GitCrash.Point("land.advanced");
        return new LandResult.Landed(await FinishAsync(journal, scope, changes).ConfigureAwait(false));
    }

    private async Task ReleaseAsync()
    {
        try
        {
            await RepairLockedAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception e) when (e is DroverException or IOException or UnauthorizedAccessException)
        {
            // The first error is on its way to the caller; the journal makes the next landing or start repair this one.
        }
    }

    // The ref has moved: this part is not cancelled any more, the checkout must follow.
    private async Task<IReadOnlyList<string>> FinishAsync(SyncJournal journal, GitScope scope, IReadOnlyList<TreeChange> changes)
    {
        var follow = await Git.TryAsync(scope, ["read-tree", "-m", "-u", journal.Old, journal.New], default, CancellationToken.None).ConfigureAwait(false);
        GitCrash.Point("land.followed");
        // Refused (an edit made since the dry run), or ended half way (disk full, killed): path by path, as after a crash.
        var left = follow.ExitCode == 0 ? [] : await _repair.RepairPathsAsync(journal, changes, CancellationToken.None).ConfigureAwait(false);
        Complete(journal);
        return left;
    }

    private void Complete(SyncJournal journal)
    {
        var copy = CheckoutRepair.CopyOf(journal.GitDirectory);
        if (File.Exists(copy))
            File.Move(copy, Path.Combine(journal.GitDirectory, "index"), overwrite: true);
        Posix.SyncFolder(journal.GitDirectory);
        GitCrash.Point("land.indexed");
        Forget(journal);
    }

    // Lock first, journal last: as long as our lock exists, so does the paper that says it is ours.
    private void Forget(SyncJournal journal)
    {
        CheckoutRepair.Unlock(journal);
        GitCrash.Point("land.unlocked");
        foreach (var file in (string[])[CheckoutRepair.CopyOf(journal.GitDirectory), CheckoutRepair.CopyOf(journal.GitDirectory) + ".lock"])
        {
            if (Directory.Exists(journal.GitDirectory))
                File.Delete(file);
        }
        File.Delete(JournalFile);
        Posix.SyncFolder(repository.StateDirectory);
    }

    private async Task<SyncRepair?> RepairLockedAsync(CancellationToken cancellationToken)
    {
        if (!File.Exists(JournalFile))
            return null;
        var journal = JsonSerializer.Deserialize(await File.ReadAllBytesAsync(JournalFile, cancellationToken).ConfigureAwait(false), GitJson.Default.SyncJournal)
            ?? throw new DroverException(ErrorCode.External, $"{JournalFile} is empty; remove it after looking at `git status`");
        await GitOrphans.WaitGoneAsync(journal.Path, time, cancellationToken).ConfigureAwait(false);
        var found = await repository.ResolveAsync([journal.Target + "^{commit}", journal.New + "^{commit}"], cancellationToken).ConfigureAwait(false);
        var moved = found[0] is { } tip && found[1] is not null && await repository.IsAncestorAsync(journal.New, tip, cancellationToken).ConfigureAwait(false);
        var ours = CheckoutRepair.HoldsLock(journal);
        // The copy is renamed to the index as the last act on files: without it, and without our lock, all was done.
        if (!moved || !Directory.Exists(journal.Path) || !Directory.Exists(journal.GitDirectory) || !File.Exists(CheckoutRepair.CopyOf(journal.GitDirectory)))
        {
            Forget(journal);
            return new SyncRepair(journal.Path, [], null);
        }
        var changes = await Staging.DiffAsync(repository, journal.Old, journal.New, renames: false, cancellationToken).ConfigureAwait(false);
        if (!ours)
        {
            // Somebody removed our lock by hand, as git's own message advises, and may have gone on.
            if (!CheckoutRepair.TryLock(journal))
                return new SyncRepair(journal.Path, [], Path.Combine(journal.GitDirectory, "index.lock"));
            if (found[0] != journal.New || Checkouts.Head(journal.GitDirectory).Branch != journal.Target)
            {
                Forget(journal);
                return new SyncRepair(journal.Path, [.. changes.Select(c => c.Path)], null);
            }
        }
        GitCrash.Point("repair.locked");
        // The lock is ours: not cancelled any more, so that the checkout does not stay locked.
        var left = await _repair.RepairPathsAsync(journal, changes, CancellationToken.None).ConfigureAwait(false);
        GitCrash.Point("repair.paths");
        Complete(journal);
        return new SyncRepair(journal.Path, left, null);
    }

    // The dry run, and what git does not protect: ignored files of the user that a new path would overwrite.
    private async Task<LandResult.WaitingCheckout?> HeldAsync(GitScope scope, Checkout checkout, IReadOnlyList<TreeChange> changes, string oldOid, string newOid, CancellationToken cancellationToken)
    {
        var inTheWay = CheckoutRepair.InTheWay(checkout.Path, changes);
        if (inTheWay.Count == 0)
        {
            string[] dry = ["read-tree", "-n", "-m", "-u", oldOid, newOid];
            if ((await Git.TryAsync(scope, dry, default, cancellationToken).ConfigureAwait(false)).ExitCode == 0)
                return null;
            // A file that was only touched looks edited until the index is refreshed (exit 1 just says that something differs).
            await Git.TryAsync(scope, ["update-index", "-q", "--refresh"], default, cancellationToken).ConfigureAwait(false);
            if ((await Git.TryAsync(scope, dry, default, cancellationToken).ConfigureAwait(false)).ExitCode == 0)
                return null;
        }
        var dirty = new HashSet<string>(inTheWay);
        var names = changes.Select(c => c.Path).ToHashSet();
        foreach (var ask in (string[][])[["diff-index", "-z", "--name-only", oldOid], ["diff-index", "-z", "--name-only", "--cached", oldOid]])
            dirty.UnionWith((await Git.RunAsync(scope, ask, cancellationToken).ConfigureAwait(false)).Fields().Where(names.Contains));
        var paths = dirty.Order(StringComparer.Ordinal).ToList();
        var specs = string.Join(' ', paths.Take(20).Select(Quote)) + (paths.Count > 20 ? " …" : "");
        return new LandResult.WaitingCheckout(checkout.Path, paths, $"git -C {Quote(checkout.Path)} stash push --all -- {specs}");
    }

    private LandResult Result(string target, RefMove move) => move switch
    {
        RefMove.Moved => new LandResult.Landed([]),
        RefMove.Stale => new LandResult.Stale(),
        RefMove.ObjectMissing => new LandResult.ObjectMissing(),
        _ => new LandResult.WaitingLock(Refs.LockOf(repository, target) ?? Path.Combine(repository.CommonDirectory, target + ".lock")),
    };

    // Same bytes and same (never later) time: with a later one git would trust stat data it must not trust.
    private static byte[] Copy(string index, string copy)
    {
        var bytes = File.ReadAllBytes(index);
        var written = File.GetLastWriteTimeUtc(index);
        File.Delete(copy + ".lock");
        File.WriteAllBytes(copy, bytes);
        File.SetLastWriteTimeUtc(copy, written);
        return bytes;
    }

    private static string Quote(string text) => text.All(c => char.IsAsciiLetterOrDigit(c) || "/._-+@%".Contains(c, StringComparison.Ordinal)) && text.Length > 0
        ? text : "'" + new StringBuilder(text).Replace("'", "'\\''") + "'";
}

using Drover.Workflows;

namespace Drover.Orchestrator.Git;

/// <summary>What became of a ref's compare-and-swap.</summary>
internal enum RefMove
{
    /// <summary>The ref has the new value.</summary>
    Moved,
    /// <summary>The ref has another value than expected; nothing changed.</summary>
    Stale,
    /// <summary>A lock file stands in the way and may not be removed (yet).</summary>
    LockHeld,
    /// <summary>The new value is not in the repository (any more); make the objects again.</summary>
    ObjectMissing,
}

/// <summary>Moves refs of the real repository by compare-and-swap, hooks off (G-16). Results are read back, never taken from messages.</summary>
internal static class Refs
{
    /// <summary>How long a held lock is waited for before it is reported.</summary>
    public static readonly TimeSpan DefaultPatience = TimeSpan.FromSeconds(60);

    private static readonly string Zero = new('0', 40);

    /// <summary>Sets a ref from <paramref name="oldOid"/> (null = must not exist) to <paramref name="newOid"/> (null = delete).</summary>
    public static async Task<RefMove> MoveAsync(Repository repository, string name, string? newOid, string? oldOid, TimeSpan patience, TimeProvider time, CancellationToken cancellationToken)
    {
        if (!name.StartsWith("refs/", StringComparison.Ordinal))
            throw new DroverException(ErrorCode.InvalidInput, $"'{name}' is not a full ref name");
        var start = time.GetTimestamp();
        var pause = TimeSpan.FromMilliseconds(100);
        string[] move = newOid is null
            ? ["update-ref", "-d", name, oldOid ?? Zero]
            : ["update-ref", "-m", "drover", name, Repository.CheckOid(newOid), oldOid ?? Zero];
        while (true)
        {
            var result = await repository.Git.TryAsync(repository.Real, move, default, cancellationToken).ConfigureAwait(false);
            if (result.ExitCode == 0)
                return RefMove.Moved;
            var found = await repository.ResolveAsync([name, newOid is null ? name : newOid + "^{object}"], cancellationToken).ConfigureAwait(false);
            if (found[0] == newOid)
                return RefMove.Moved;
            if (found[0] != oldOid)
                return RefMove.Stale;
            if (newOid is not null && found[1] is null)
                return RefMove.ObjectMissing;
            if (LockOf(repository, name) is not { } file)
            {
                // The lock may have gone between the failure and the look: one more try, then it is something unknown.
                var again = await repository.Git.TryAsync(repository.Real, move, default, cancellationToken).ConfigureAwait(false);
                if (again.ExitCode == 0)
                    return RefMove.Moved;
                if (LockOf(repository, name) is null && await repository.ResolveAsync([name], cancellationToken).ConfigureAwait(false) is [var now] && now == oldOid)
                    throw GitClient.Failure(move, again);
                continue;
            }
            if (await StaleLock.TryClearAsync(repository, file, time, cancellationToken).ConfigureAwait(false))
                continue;
            if (time.GetElapsedTime(start) >= patience)
                return RefMove.LockHeld;
            await Task.Delay(pause, time, cancellationToken).ConfigureAwait(false);
            pause = TimeSpan.FromMilliseconds(Math.Min(pause.TotalMilliseconds * 2, 5000));
        }
    }

    /// <summary>Moves one of Drover's own refs, where any other outcome than success is an error.</summary>
    /// <exception cref="DroverException">Conflict: somebody else moved it; Unavailable: a lock is held.</exception>
    public static async Task MustMoveAsync(Repository repository, string name, string? newOid, string? oldOid, TimeProvider time, CancellationToken cancellationToken)
    {
        var result = await MoveAsync(repository, name, newOid, oldOid, DefaultPatience, time, cancellationToken).ConfigureAwait(false);
        if (result != RefMove.Moved)
        {
            throw result == RefMove.LockHeld
                ? new DroverException(ErrorCode.Unavailable, $"{name} cannot be moved: waiting for {StaleLock.Describe(repository, LockOf(repository, name) ?? name)}")
                : new DroverException(ErrorCode.Conflict, $"{name} was moved by something else than drover ({result}); repeat the step");
        }
    }

    /// <summary>The lock file that stands in a ref's way, or null. Moving the branch HEAD points to locks HEAD too, for its log.</summary>
    public static string? LockOf(Repository repository, string name) =>
        ((string[])[name + ".lock", "packed-refs.lock", "HEAD.lock"]).Select(f => Path.Combine(repository.CommonDirectory, f)).FirstOrDefault(File.Exists);
}

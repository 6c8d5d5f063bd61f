
namespace Drover.Orchestrator.CodingAgents;

/// <summary>
/// Ends what an earlier orchestrator, or a keeper that was killed, left behind: SIGKILL at once, repeated
/// until nothing is found. An outcome cannot be had from such a process any more, so it gets no grace.
/// </summary>
internal static class ProcessSweep
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10), Step = TimeSpan.FromMilliseconds(20);

    /// <summary>
    /// Ends every process that carries the run token, its keeper, and all their descendants.
    /// Returns those that were still there after 10 s (in an uninterruptible wait, or another user's); empty is the normal case.
    /// </summary>
    public static Task<IReadOnlyList<ProcessIdentity>> KillByTokenAsync(string token, TimeProvider time, CancellationToken cancellationToken) =>
        KillAllAsync(() => ProcessTable.CarriersOf(token), time, cancellationToken);

    /// <summary>
    /// Ends a recorded process with its session and descendants, if it is still that process; nothing is signalled
    /// by number alone. Returns the survivors after 10 s.
    /// </summary>
    public static Task<IReadOnlyList<ProcessIdentity>> KillIdentityAsync(ProcessIdentity identity, TimeProvider time, CancellationToken cancellationToken)
    {
        if (!identity.IsAlive)
            return Task.FromResult<IReadOnlyList<ProcessIdentity>>([]);
        // The members are collected while the leader lives; once it is dead its number proves nothing.
        var members = ProcessTable.SessionOf(identity.Pid);
        if (!identity.IsAlive)
            return Task.FromResult<IReadOnlyList<ProcessIdentity>>([]);
        return KillAllAsync(
            () => [.. members.Where(member => ProcessIdentity.Of(member.Pid, member.StartTicks).IsAlive)], time, cancellationToken);
    }

    /// <summary>
    /// Ends what is left of a session whose leader was started by us and may have ended just now. Only for the moment
    /// in which a keeper was lost: a session's number is not given away while it has members, but later it may be another's.
    /// </summary>
    internal static Task<IReadOnlyList<ProcessIdentity>> KillSessionAsync(ProcessIdentity leader, TimeProvider time, CancellationToken cancellationToken) =>
        KillAllAsync(
            () => ProcessTable.Read(leader.Pid) is { } now && now.StartTicks != leader.StartTicks ? [] : ProcessTable.SessionOf(leader.Pid),
            time, cancellationToken);

    private static async Task<IReadOnlyList<ProcessIdentity>> KillAllAsync(
        Func<List<ProcessEntry>> find, TimeProvider time, CancellationToken cancellationToken)
    {
        var began = time.GetTimestamp();
        for (var round = 0; ; round++)
        {
            var found = find().Select(entry => ProcessIdentity.Of(entry.Pid, entry.StartTicks)).ToList();
            if (found.Count == 0 || time.GetElapsedTime(began) > Patience)
                return found;
            KillRound(found, round);
            await Task.Delay(Step, time, cancellationToken);
        }
    }

    /// <summary>One pass over a tree. Later passes stop everything first, so that something that forks faster than we kill cannot win.</summary>
    internal static void KillRound(IReadOnlyList<ProcessIdentity> tree, int round)
    {
        if (round > 2)
        {
            foreach (var process in tree)
                process.Kill(Native.SigStop);
        }
        foreach (var process in tree)
            process.Kill();
    }
}

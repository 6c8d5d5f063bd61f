using Drover.Orchestrator.Git;

namespace Drover.Orchestrator.Runs;

/// <summary>The step bodies of the landing lane.</summary>
internal sealed class LaneSteps(RunServices services)
{
    private static readonly TimeSpan LockPatience = TimeSpan.FromSeconds(60);

    /// <summary>
    /// Says what a candidate needs now: it landed already, its intended commit waits for the ref, or a commit is built on the
    /// present tip with evidence for its exact tree. Touches no ref.
    /// </summary>
    public async Task<LanePlan> PlanAsync(LaneInput lane, LaneCandidate candidate, CancellationToken cancellationToken)
    {
        var name = new AttemptName(candidate.Task, candidate.Attempt);
        services.Live.Note(candidate.Task, candidate.Attempt, "landing", lane.Target);
        if (await services.Landing.FindLandedAsync(lane.Target, candidate.IntendedOid, name, candidate.WorkOid, candidate.BaseOid, cancellationToken).ConfigureAwait(false) is { } landed)
            return new LanePlan("landed", landed, null, null, null);
        string tip = await services.Landing.ResolveTargetAsync(lane.Target, cancellationToken).ConfigureAwait(false);
        string date = DateTimeOffset.FromUnixTimeMilliseconds(candidate.QueuedAt).ToString("O");
        if (candidate is { IntendedOid: { } intended, IntendedBase: { } basis })
            return basis == tip ? new LanePlan("ready", intended, tip, date, null) : new LanePlan("stale", null, tip, null, null);

        // The evidence is for the tree of one tip; a moved tip is merged and tested again before the ref may move.
        string tree;
        if (candidate.EvidenceTip == tip && candidate.TreeOid is { } tested)
        {
            tree = tested;
        }
        else
        {
            switch (await services.Landing.MergeAsync(tip, candidate.WorkOid, cancellationToken).ConfigureAwait(false))
            {
                case MergeOutcome.Clean clean:
                    tree = clean.Tree;
                    break;
                case MergeOutcome.Conflict conflict:
                    return new LanePlan("conflict", null, tip, "conflicts with the target in " + string.Join(", ", conflict.Paths.Take(5)), null);
                default:
                    return new LanePlan("conflict", null, tip, "its history has nothing in common with the target", null);
            }
        }
        GateVerdictOnTree verdict = await services.Gates.TestAsync(tree, candidate.TestCommand, candidate.Task, candidate.Attempt, cancellationToken).ConfigureAwait(false);
        if (verdict.Broken)
            throw new Drover.Workflows.DroverException(Drover.Workflows.ErrorCode.External, $"the test command could not be run: {verdict.Output}");
        if (!verdict.Passed)
            return new LanePlan("red", null, tip, verdict.Output, null);
        string oid = await services.Landing.BuildCommitAsync(tree, tip, candidate.WorkOid, name, candidate.Title, services.Repository.Identity(),
            DateTimeOffset.FromUnixTimeMilliseconds(candidate.QueuedAt), cancellationToken).ConfigureAwait(false);
        // Held before anything is recorded: an intent says that the commit may already be on its way.
        if (await services.Checkout.ProbeAsync(lane.Target, tip, oid, cancellationToken).ConfigureAwait(false) is { } held)
            return new LanePlan("held", null, null, "checkout", [.. held.Paths.Take(20), held.Command]);
        return new LanePlan("ready", oid, tip, date, null);
    }

    /// <summary>Moves the target by compare-and-swap, and its checkout where that is safe. Repeating it finds the move done.</summary>
    public async Task<LaneMove> AdvanceAsync(LaneInput lane, LanePlan plan, CancellationToken cancellationToken) =>
        await services.Checkout.LandAsync(lane.Target, plan.Tip!, plan.Oid!, LockPatience, cancellationToken).ConfigureAwait(false) switch
        {
            LandResult.Landed => new LaneMove("landed", null, null),
            LandResult.WaitingCheckout held => new LaneMove("held", "checkout", [.. held.Paths.Take(20), held.Command]),
            LandResult.WaitingLock held => new LaneMove("held", "lock", [held.File]),
            // Stale, or the objects were collected: plan again on the present tip.
            _ => new LaneMove("stale", null, null),
        };
}

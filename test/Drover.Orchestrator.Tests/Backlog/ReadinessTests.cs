using Drover.Orchestrator.Backlog;

namespace Drover.Orchestrator.Tests.Backlog;

public sealed class ReadinessTests
{
    private static Readiness Compute(ReadinessInput[] tasks, (string, string)[] edges, string? epic = null, long now = 1_000) =>
        Readiness.Compute(tasks, edges, now, epic);

    private static ReadinessInput Task(string id, StoredStatus status = StoredStatus.Open, string? epic = null, string? parent = null, int priority = 0, long seq = 0,
        string? pause = null, long? notBefore = null, string? hold = null) => new(id, epic, parent, status, priority, seq, pause, notBefore, hold);

    [Fact]
    public void T02_a_diamond_opens_when_both_sides_are_completed()
    {
        (string, string)[] edges = [("b", "a"), ("c", "a"), ("d", "b"), ("d", "c")];
        Readiness first = Compute([Task("a"), Task("b"), Task("c"), Task("d")], edges);
        Assert.Equal(["a"], first.Runnable());
        Assert.Equal("blocked by a (ready)", first["b"].Reason);
        Assert.Equal("blocked by b (blocked)", first["d"].Reason);
        Readiness half = Compute([Task("a", StoredStatus.Completed), Task("b", StoredStatus.Completed), Task("c", StoredStatus.InProgress), Task("d")], edges);
        Assert.Empty(half.Runnable());
        Assert.Equal("blocked by c (in_progress)", half["d"].Reason);
        Readiness done = Compute([Task("a", StoredStatus.Completed), Task("b", StoredStatus.Completed), Task("c", StoredStatus.Completed), Task("d")], edges);
        Assert.Equal(["d"], done.Runnable());
    }

    [Fact]
    public void D15_a_failed_blocker_makes_everything_behind_it_unreachable_and_names_the_cause()
    {
        Readiness r = Compute([Task("a", StoredStatus.Failed), Task("b"), Task("c"), Task("free"), Task("mixed")],
            [("b", "a"), ("c", "b"), ("mixed", "free"), ("mixed", "b")]);
        Assert.Equal(ShownStatus.Unreachable, r["b"].Shown);
        Assert.Equal("unreachable because a failed", r["c"].Reason);
        Assert.Equal(ShownStatus.Unreachable, r["mixed"].Shown);
        Assert.Null(r.Verdict().Outcome);
        RunVerdict end = Compute([Task("a", StoredStatus.Failed), Task("b"), Task("free", StoredStatus.Completed)], [("b", "a")]).Verdict();
        Assert.Equal(RunOutcome.FinishedWithFailures, end.Outcome);
        Assert.Equal("unreachable because a failed", Assert.Single(end.Waiting).Reason);
    }

    [Fact]
    public void A_cancelled_blocker_makes_dependents_unreachable_and_the_run_stalls_for_a_person()
    {
        Readiness r = Compute([Task("a", StoredStatus.Cancelled), Task("b")], [("b", "a")]);
        Assert.Equal("unreachable because a was cancelled", r["b"].Reason);
        Assert.Equal(RunOutcome.Stalled, r.Verdict().Outcome);
        Readiness both = Compute([Task("a", StoredStatus.Cancelled), Task("f", StoredStatus.Failed), Task("b")], [("b", "a"), ("b", "f")]);
        Assert.Equal("unreachable because f failed", both["b"].Reason);
    }

    [Fact]
    public void D12_an_epic_run_ends_although_other_epics_have_ready_tasks()
    {
        ReadinessInput[] tasks = [Task("a", StoredStatus.Completed, "e1"), Task("x", epic: "e2")];
        Readiness r = Compute(tasks, [], "e1");
        Assert.Empty(r.Runnable());
        Assert.Equal("other epic: e2", r["x"].Reason);
        Assert.Equal(RunOutcome.Finished, r.Verdict().Outcome);
        Assert.Null(Compute(tasks, []).Verdict().Outcome);
        Readiness waits = Compute([Task("a", epic: "e1"), Task("x", epic: "e2")], [("a", "x")], "e1");
        Assert.Equal("blocked by x (ready, other epic e2)", waits["a"].Reason);
        Assert.Equal(RunOutcome.Stalled, waits.Verdict().Outcome);
    }

    [Fact]
    public void D12_ready_sub_tasks_of_a_failed_parent_still_run_and_the_run_can_end()
    {
        Assert.Equal(["p.2"], Compute([Task("p", StoredStatus.Failed), Task("p.1", StoredStatus.Completed, parent: "p"), Task("p.2", parent: "p")], []).Runnable());
        RunVerdict end = Compute([Task("p"), Task("p.1", StoredStatus.Failed, parent: "p"), Task("p.2", StoredStatus.Completed, parent: "p")], []).Verdict();
        Assert.Equal(RunOutcome.FinishedWithFailures, end.Outcome);
        Assert.Equal("unreachable because p.1 failed", Assert.Single(end.Waiting).Reason);
    }

    [Fact]
    public void D38_sub_tasks_wait_for_the_blockers_of_their_parents_and_parents_for_their_sub_tasks()
    {
        (string, string)[] edges = [("p", "a")];
        Readiness r = Compute([Task("a"), Task("p"), Task("p.1", parent: "p"), Task("p.1.1", parent: "p.1")], edges);
        Assert.Equal(["a"], r.Runnable());
        Assert.Equal("blocked by a (ready)", r["p.1.1"].Reason);
        r = Compute([Task("a", StoredStatus.Completed), Task("p"), Task("p.1", parent: "p"), Task("p.1.1", parent: "p.1")], edges);
        Assert.Equal(["p.1.1"], r.Runnable());
        Assert.Equal("waits for its sub-task p.1 (blocked)", r["p"].Reason);
        r = Compute([Task("p"), Task("p.1", StoredStatus.Cancelled, parent: "p"), Task("p.2", StoredStatus.Completed, parent: "p")], []);
        Assert.Equal(["p"], r.Runnable());
        r = Compute([Task("p", StoredStatus.Cancelled), Task("p.1", parent: "p")], []);
        Assert.Equal("unreachable because its parent p was cancelled", r["p.1"].Reason);
    }

    [Fact]
    public void Reasons_of_backoff_pause_and_held_landing()
    {
        Readiness r = Compute([Task("a", notBefore: 5_000), Task("b", StoredStatus.Paused, pause: "conflict"), Task("c"), Task("d", StoredStatus.InProgress, hold: "checkout src/a.cs")], [("c", "b")]);
        Assert.Equal(("waits until 1970-01-01T00:00:05Z", 5_000L), (r["a"].Reason, r["a"].WaitsUntil));
        Assert.Equal(ShownStatus.Ready, r["a"].Shown);
        Assert.Equal("paused: conflict", r["b"].Reason);
        Assert.Equal("blocked by b (paused: conflict)", r["c"].Reason);
        Assert.Equal("waiting: checkout src/a.cs", r["d"].Reason);
        Assert.Equal(5_000, r.Verdict().NextStart);
        Assert.True(Compute([Task("a", notBefore: 5_000)], [], now: 5_000)["a"].Runnable);
    }

    [Fact]
    public void Only_paused_tasks_left_is_stalled_with_the_reason_of_each()
    {
        RunVerdict end = Compute([Task("a", StoredStatus.Paused, pause: "secret"), Task("b"), Task("c", StoredStatus.Completed), Task("f", StoredStatus.Failed)], [("b", "a")]).Verdict();
        Assert.Equal(RunOutcome.Stalled, end.Outcome);
        Assert.Equal([("a", "paused: secret"), ("b", "blocked by a (paused: secret)")], end.Waiting.Select(w => (w.Task, w.Reason)));
    }

    [Fact]
    public void An_interrupted_run_with_work_left_is_interrupted_and_one_without_is_finished()
    {
        Assert.Null(Compute([Task("a", StoredStatus.InProgress), Task("b")], []).Verdict(interrupted: true).Outcome);
        Assert.Equal(RunOutcome.Interrupted, Compute([Task("a", StoredStatus.Completed), Task("b")], []).Verdict(interrupted: true).Outcome);
        Assert.Equal(RunOutcome.Finished, Compute([Task("a", StoredStatus.Completed)], []).Verdict(interrupted: true).Outcome);
    }

    [Fact]
    public void Claim_order_is_priority_then_age()
    {
        Assert.Equal(["high", "old", "new"], Compute([Task("new", seq: 3), Task("old", seq: 1), Task("high", priority: 5, seq: 9)], []).Runnable());
    }

    [Fact]
    public void A_cycle_that_came_from_outside_still_ends_and_blocks()
    {
        Readiness r = Compute([Task("a"), Task("b"), Task("c")], [("a", "b"), ("b", "a")]);
        Assert.Equal(ShownStatus.Blocked, r["a"].Shown);
        Assert.Equal(["c"], r.Runnable());
    }

    /// <summary>Chains as long as the backlog must not exhaust the stack; ten thousand tasks are one pass.</summary>
    [Fact]
    public void Ten_thousand_tasks_in_one_chain_are_judged()
    {
        ReadinessInput[] tasks = [.. Enumerable.Range(0, 10_000).Select(i => Task($"t{i}", i == 9_999 ? StoredStatus.Failed : StoredStatus.Open))];
        (string, string)[] edges = [.. Enumerable.Range(0, 9_999).Select(i => ($"t{i}", $"t{i + 1}"))];
        Assert.Equal("unreachable because t9999 failed", Compute(tasks, edges)["t0"].Reason);
    }
}

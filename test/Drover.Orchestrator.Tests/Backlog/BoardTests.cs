using Drover.Orchestrator.Backlog;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Backlog;

public sealed class BoardTests : IDisposable
{
    private const string P = TestDatabase.Project;
    private readonly TestDatabase _db = new();

    public void Dispose() => _db.Dispose();

    private DroverException Refused(Action action, ErrorCode code)
    {
        long tasks = _db.Session.Number("SELECT COUNT(*) FROM {d}tasks"), events = _db.Session.Number("SELECT COUNT(*) FROM {d}task_events");
        var error = Assert.Throws<DroverException>(action);
        Assert.Equal(code, error.Code);
        Assert.DoesNotContain('\n', error.Message);
        Assert.Equal(tasks, _db.Session.Number("SELECT COUNT(*) FROM {d}tasks"));
        Assert.Equal(events, _db.Session.Number("SELECT COUNT(*) FROM {d}task_events"));
        return error;
    }

    [Fact]
    public void Ids_epics_and_sub_tasks()
    {
        string epic = _db.Transact(s => Board.AddEpic(s, P, "Payments")).Id;
        string task = _db.Add("Write the parser", epic);
        Assert.Matches("^epic-[a-z0-9]{4,6}$", epic);
        Assert.Matches("^task-[a-z0-9]{4,6}$", task);
        Assert.Equal(task + ".1", _db.Add("First part", parent: task));
        Assert.Equal(task + ".7", _db.Add($"{task}.7 Seventh part"));
        Assert.Equal("Seventh part", _db.Task(task + ".7").Title);
        Assert.Equal(task + ".8", _db.Add("Next part", parent: task));
        Assert.Equal(epic, _db.Task(task + ".8").Epic);
        Assert.Equal(task + ".8.1", _db.Add("Deep part", parent: task + ".8"));
        Refused(() => _db.Add("Too deep", parent: task + ".8.1"), ErrorCode.InvalidInput);
        Refused(() => _db.Add($"{task}.7 Again"), ErrorCode.Conflict);
        Refused(() => _db.Add("   "), ErrorCode.InvalidInput);
        Refused(() => _db.Add($"{task}.9  "), ErrorCode.InvalidInput);
        Assert.Contains($"did you mean {task}?", Refused(() => _db.Add("Write more", blockedBy: task + "x"), ErrorCode.NotFound).Message, StringComparison.Ordinal);
        Assert.Contains($"did you mean {epic}?", Refused(() => _db.Add("Write more", epic: epic + "x"), ErrorCode.NotFound).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void D49_cycles_are_refused_and_named_and_a_finished_blocker_does_not_block()
    {
        string a = _db.Add("Task a"), b = _db.Add("Task b", blockedBy: a), c = _db.Add("Task c", blockedBy: b);
        Assert.Contains($"{a} -> {c} -> {b} -> {a}", Refused(() => _db.Transact(s => { Board.Block(s, P, a, [c]); return 0; }), ErrorCode.InvalidInput).Message, StringComparison.Ordinal);
        Refused(() => _db.Transact(s => { Board.Block(s, P, a, [a]); return 0; }), ErrorCode.InvalidInput);
        // Through the hierarchy: the parent waits for its child, and the child for the parent's blockers.
        string parent = _db.Add("Parent", blockedBy: c);
        string child = _db.Add("Child", parent: parent);
        Refused(() => _db.Transact(s => { Board.Block(s, P, child, [parent]); return 0; }), ErrorCode.InvalidInput);
        Refused(() => _db.Transact(s => { Board.Block(s, P, a, [child]); return 0; }), ErrorCode.InvalidInput);
        // A sibling is no cycle.
        _db.Add("Sibling", parent: parent, blockedBy: child);

        RunRow run = _db.StartRun();
        _db.Land(Assert.Single(_db.Claim(run)));
        string late = _db.Add("Late", blockedBy: a);
        Assert.True(Readiness.Load(_db.Session, P)[late].Runnable);
    }

    [Fact]
    public void T03_an_attempt_is_counted_when_it_is_claimed_and_claims_respect_room_order_and_epic()
    {
        string epic = _db.Transact(s => Board.AddEpic(s, P, "Only these")).Id;
        string other = _db.Add("Other epic", priority: 99), low = _db.Add("Low", epic), high = _db.Add("High", epic, priority: 9), mid = _db.Add("Mid", epic, priority: 3);
        RunRow run = _db.StartRun(epic);
        Assert.Equal([high, mid], _db.Claim(run, 2).Select(c => c.Task));
        Assert.Equal(1, _db.Task(high).Attempts);
        Assert.Equal(StoredStatus.Claimed, _db.Task(high).Status);
        Assert.Equal([low], _db.Claim(run).Select(c => c.Task));
        Assert.Empty(_db.Claim(run));
        Assert.Equal(StoredStatus.Open, _db.Task(other).Status);
        Assert.Equal($"drover:{P}:task:{low}:1", _db.Task(low).WorkflowId);
    }

    [Fact]
    public void D40_max_attempts_three_gives_exactly_three_executions_with_growing_waits()
    {
        string task = _db.Add("Write the parser");
        RunRow run = _db.StartRun(maxAttempts: 3);
        var waits = new List<long>();
        int executions = 0;
        for (int round = 0; round < 10 && _db.Claim(run) is [var claimed]; round++)
        {
            executions++;
            Assert.Equal(executions, claimed.Attempt);
            _db.Start(claimed);
            AttemptFate fate = _db.Transact(s => Board.FailAttempt(s, P, task, claimed.Attempt, FailureKind.Agent, "it broke", claimed.MaxAttempts));
            Assert.True(fate.Applied);
            if (fate.NotBefore is not { } until)
                break;
            waits.Add(until - _db.Session.NowMs);
            Assert.Empty(_db.Claim(run));
            _db.Clock.Advance(TimeSpan.FromMinutes(5));
        }
        Assert.Equal(3, executions);
        Assert.Equal(StoredStatus.Failed, _db.Task(task).Status);
        Assert.Equal("it broke", _db.Task(task).LastError);
        Assert.True(waits is [> 700, > 1500] && waits[1] > waits[0], string.Join(' ', waits));

        // retry gives one more, --force all of them; numbers go on.
        _db.Transact(s => Board.Retry(s, P, task, force: false, 3));
        ClaimedTask fourth = Assert.Single(_db.Claim(run));
        Assert.Equal(4, fourth.Attempt);
        Assert.Null(_db.Transact(s => Board.FailAttempt(s, P, task, 4, FailureKind.Agent, "again", 3)).NotBefore);
        _db.Transact(s => Board.Retry(s, P, task, force: true, 3));
        Assert.Equal(5, Assert.Single(_db.Claim(run)).Attempt);
        Assert.NotNull(_db.Transact(s => Board.FailAttempt(s, P, task, 5, FailureKind.Agent, "again", 3)).NotBefore);
    }

    [Fact]
    public void An_interrupt_continues_the_same_attempt_and_counts_nothing()
    {
        string task = _db.Add("Write the parser");
        RunRow run = _db.StartRun(maxAttempts: 1);
        for (int k = 0; k < 5; k++)
        {
            ClaimedTask claimed = Assert.Single(_db.Claim(run));
            Assert.Equal((1, k), (claimed.Attempt, claimed.Continuation));
            Assert.Equal($"drover:{P}:task:{task}:1" + (k == 0 ? "" : $".r{k}"), claimed.WorkflowId);
            _db.Start(claimed);
            Assert.True(_db.Transact(s => Board.RecordFacts(s, P, task, 1, new AttemptFacts { SessionId = "s1", Worktree = ".drover/worktrees/x" })));
            Assert.True(_db.Transact(s => Board.ReleaseAttempt(s, P, task, 1, "disk", delayMs: k == 4 ? 60_000 : 0)));
            Assert.Equal("s1", Board.FindAttempt(_db.Session, P, task, 1)!.SessionId);
        }
        Assert.Empty(_db.Claim(run));
        Assert.Equal((1, 1), (_db.Task(task).Attempts, _db.Task(task).Consumed));
        Assert.Equal(1, _db.Session.Number("SELECT COUNT(*) FROM {d}attempts"));
    }

    [Fact]
    public void D14_writes_of_an_old_attempt_change_nothing()
    {
        string task = _db.Add("Write the parser"), dependent = _db.Add("Use the parser", blockedBy: task);
        RunRow run = _db.StartRun();
        _db.Start(Assert.Single(_db.Claim(run)));
        _db.Transact(s => Board.FailAttempt(s, P, task, 1, FailureKind.Gate, "red", 3, "gate tail"));
        _db.Clock.Advance(TimeSpan.FromMinutes(5));
        ClaimedTask second = Assert.Single(_db.Claim(run));
        _db.Start(second);
        long events = _db.Session.Number("SELECT COUNT(*) FROM {d}task_events");
        Assert.False(_db.Transact(s => Board.StartAttempt(s, P, task, 1, new AttemptFacts())));
        Assert.False(_db.Transact(s => Board.RecordWork(s, P, task, 1, "w", "t")));
        Assert.False(_db.Transact(s => Board.InsertCandidate(s, P, task, 1, "main", "w", "t")));
        Assert.False(_db.Transact(s => Board.MarkLanded(s, P, task, 1, "oid")));
        Assert.False(_db.Transact(s => Board.FinishNoOp(s, P, task, 1, "x")));
        Assert.False(_db.Transact(s => Board.FailAttempt(s, P, task, 1, FailureKind.Agent, "x", 3)).Applied);
        Assert.False(_db.Transact(s => Board.ReleaseAttempt(s, P, task, 1, "x")));
        Assert.False(_db.Transact(s => Board.Pause(s, P, task, 1, PauseReason.Secret, "x")));
        Assert.Equal(events, _db.Session.Number("SELECT COUNT(*) FROM {d}task_events"));
        Assert.Equal(StoredStatus.InProgress, _db.Task(task).Status);
        Assert.Equal("gate tail", Board.FindAttempt(_db.Session, P, task, 1)!.GateOutput);
        // A blocker that completes opens what waits, and never touches what is cancelled.
        _db.Transact(s => Board.Cancel(s, P, dependent));
        Assert.True(_db.Transact(s => Board.MarkLanded(s, P, task, 2, "oid")));
        Assert.True(_db.Transact(s => Board.MarkLanded(s, P, task, 2, "oid")));
        Assert.False(_db.Transact(s => Board.MarkLanded(s, P, task, 2, "another")));
        Assert.Equal(StoredStatus.Cancelled, _db.Task(dependent).Status);
    }

    [Fact]
    public void Once_the_landing_is_intended_nothing_withdraws_it()
    {
        string task = _db.Add("Write the parser");
        RunRow run = _db.StartRun();
        ClaimedTask claimed = Assert.Single(_db.Claim(run));
        _db.Start(claimed);
        Assert.True(_db.Transact(s => Board.InsertCandidate(s, P, task, 1, "main", "work", "tree")));
        Assert.True(_db.Transact(s => Board.InsertCandidate(s, P, task, 1, "main", "work", "tree")));
        Assert.Single(Board.OpenCandidates(_db.Session, P, "main"));
        Assert.True(_db.Transact(s => Board.RecordIntent(s, P, task, 1, "new", "old", "message", "date")));
        Assert.True(_db.Transact(s => Board.RecordIntent(s, P, task, 1, "new", "old", "message", "date")));
        Assert.False(_db.Transact(s => Board.RecordIntent(s, P, task, 1, "other", "old", "message", "date")));
        Assert.Equal(CancelResult.Landing, _db.Transact(s => Board.Cancel(s, P, task)).Result);
        Assert.False(_db.Transact(s => Board.FailAttempt(s, P, task, 1, FailureKind.Agent, "x", 3)).Applied);
        Assert.False(_db.Transact(s => Board.Pause(s, P, task, 1, PauseReason.Secret, "x")));
        Assert.False(_db.Transact(s => Board.FinishNoOp(s, P, task, 1, "x")));
        // An interrupt may come between; the lane lands it all the same.
        Assert.True(_db.Transact(s => Board.ReleaseAttempt(s, P, task, 1, "interrupt")));
        Assert.True(_db.Transact(s => Board.MarkLanded(s, P, task, 1, "new")));
        Assert.Equal(("landed", "new"), (_db.Task(task).Outcome, _db.Task(task).LandedOid));
        Assert.Equal(LandingState.Landed, Board.FindLanding(_db.Session, P, task, 1)!.State);
        Assert.Contains("already landed", Assert.Throws<DroverException>(() => _db.Transact(s => Board.Cancel(s, P, task))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Cancel_before_the_intent_withdraws_the_candidate_and_names_the_workflow()
    {
        string task = _db.Add("Write the parser");
        ClaimedTask claimed = Assert.Single(_db.Claim(_db.StartRun()));
        _db.Start(claimed);
        _db.Transact(s => Board.InsertCandidate(s, P, task, 1, "main", "work", "tree"));
        CancelAnswer answer = _db.Transact(s => Board.Cancel(s, P, task, "not wanted"));
        Assert.Equal((CancelResult.Cancelled, claimed.WorkflowId), (answer.Result, answer.WorkflowId));
        Assert.Equal(LandingState.Withdrawn, Board.FindLanding(_db.Session, P, task, 1)!.State);
        Assert.False(_db.Transact(s => Board.RecordIntent(s, P, task, 1, "new", "old", "m", "d")));
        Assert.False(_db.Transact(s => Board.MarkLanded(s, P, task, 1, "new")));
        Assert.Equal(CancelResult.AlreadyCancelled, _db.Transact(s => Board.Cancel(s, P, task)).Result);
    }

    [Fact]
    public void A_rejected_or_held_candidate_can_be_queued_anew_and_holds_are_shown()
    {
        string task = _db.Add("Write the parser");
        _db.Start(Assert.Single(_db.Claim(_db.StartRun())));
        _db.Transact(s => Board.InsertCandidate(s, P, task, 1, "main", "work", "tree"));
        Assert.True(_db.Transact(s => Board.HoldCandidate(s, P, task, 1, "checkout", ["a.cs", "b.cs"])));
        Assert.Equal("waiting: checkout a.cs, b.cs", Readiness.Load(_db.Session, P)[task].Reason);
        Assert.True(_db.Transact(s => Board.RecordIntent(s, P, task, 1, "new", "old", "m", "d")));
        Assert.False(_db.Transact(s => Board.ClearIntent(s, P, task, 1, "other")));
        Assert.True(_db.Transact(s => Board.ClearIntent(s, P, task, 1, "new")));
        Assert.True(_db.Transact(s => Board.RejectCandidate(s, P, task, 1, LandingState.Conflict, "src/a.cs")));
        Assert.Empty(Board.OpenCandidates(_db.Session, P, "main"));
        Assert.True(_db.Transact(s => Board.InsertCandidate(s, P, task, 1, "main", "work2", "tree2")));
        Assert.Equal(("work2", LandingState.Waiting), Board.OpenCandidates(_db.Session, P, "main") is [var l] ? (l.WorkOid, l.State) : default);
    }

    [Fact]
    public void A_person_answers_a_paused_task()
    {
        string task = _db.Add("Write the parser");
        RunRow run = _db.StartRun(maxAttempts: 1);
        _db.Start(Assert.Single(_db.Claim(run)));
        Assert.True(_db.Transact(s => Board.Pause(s, P, task, 1, PauseReason.Conflict, "Which side?")));
        Assert.Contains("nothing that could land", Assert.Throws<DroverException>(() => _db.Transact(s => Board.Resolve(s, P, task, Resolution.Accept))).Message, StringComparison.Ordinal);
        _db.Transact(s => Board.Resolve(s, P, task, Resolution.Continue, "take theirs"));
        ClaimedTask again = Assert.Single(_db.Claim(run));
        Assert.Equal((1, 1), (again.Attempt, again.Continuation));
        Assert.Equal(("continue", "take theirs"), (_db.Task(task).Answer, _db.Task(task).AnswerNote));
        _db.Start(again);
        Assert.True(_db.Transact(s => Board.Pause(s, P, task, 1, PauseReason.Deletions, "All of it?")));
        _db.Transact(s => Board.Resolve(s, P, task, Resolution.Abandon));
        Assert.Equal((StoredStatus.Failed, "All of it?"), (_db.Task(task).Status, _db.Task(task).LastError));
        Assert.Equal("abandoned", Board.FindAttempt(_db.Session, P, task, 1)!.Outcome);
    }

    [Fact]
    public void Runs_are_opened_once_adopted_with_what_changed_and_end_with_an_outcome()
    {
        RunRow run = _db.StartRun(workers: 2);
        OpenedRun again = _db.Transact(s => Board.OpenRun(s, P, new RunOptions { Target = "main" }, new RunOptions { Workers = 4 }, "executor-2"));
        Assert.True(again.Adopted);
        Assert.Equal(run.Id, again.Run.Id);
        Assert.Equal(["workers 2 -> 4"], again.Changes);
        Assert.Equal(2, Board.ActiveRun(_db.Session, P)!.Generation);
        Refused(() => _db.Transact(s => Board.OpenRun(s, P, new RunOptions { Target = "main" }, new RunOptions { Target = "other" }, "executor-2")), ErrorCode.Conflict);
        _db.Add("Write the parser");
        Assert.Equal(1, _db.Transact(s => Board.DrainRun(s, P, run.Id)));
        Assert.Empty(_db.Claim(run));
        Assert.Equal(RunOutcome.Interrupted, Board.VerdictOf(_db.Session, P, Board.ActiveRun(_db.Session, P)!).Outcome);
        Assert.True(_db.Transact(s => Board.EndRun(s, P, run.Id, RunOutcome.Interrupted)));
        RunRow resumed = _db.StartRun();
        Assert.Equal((run.Id, null, false), (resumed.Id, resumed.Outcome, resumed.Draining));
        _db.Land(Assert.Single(_db.Claim(resumed)));
        Assert.Equal(RunOutcome.Finished, Board.VerdictOf(_db.Session, P, Board.ActiveRun(_db.Session, P)!).Outcome);
        Assert.True(_db.Transact(s => Board.EndRun(s, P, run.Id, RunOutcome.Finished)));
        Assert.False(_db.Transact(s => Board.EndRun(s, P, run.Id, RunOutcome.Finished)));
        Assert.Null(Board.ActiveRun(_db.Session, P));
    }

    [Fact]
    public void A_run_that_does_not_continue_on_failure_claims_nothing_after_one()
    {
        string bad = _db.Add("Bad"), good = _db.Add("Good");
        RunRow run = _db.StartRun(continueOnFailure: false);
        ClaimedTask first = _db.Claim(run, 1)[0];
        Assert.Equal(bad, first.Task);
        _db.Transact(s => Board.FailAttempt(s, P, bad, 1, FailureKind.Permanent, "no", 3));
        Assert.Empty(_db.Claim(run));
        RunVerdict end = Board.VerdictOf(_db.Session, P, run);
        Assert.Equal(bad, Board.StoppedBy(_db.Session, P, run));
        Assert.Equal(RunOutcome.FinishedWithFailures, end.Outcome);
        Assert.Equal((good, $"not started: the run stopped after {bad} failed"), (end.Waiting[0].Task, end.Waiting[0].Reason));
    }

    /// <summary>D-26: numbers have no gaps, also not after a transaction that was rolled back, and events without an epic are kept.</summary>
    [Fact]
    public void D26_events_have_no_gaps()
    {
        _db.Add("One");
        Assert.Throws<InvalidOperationException>(() => _db.Transact<int>(s =>
        {
            Board.AddTask(s, P, new NewTask { Title = "Two" });
            throw new InvalidOperationException();
        }));
        _db.Add("Three");
        IReadOnlyList<EventRow> events = Board.EventsAfter(_db.Session, P, 0);
        Assert.Equal(Enumerable.Range(1, events.Count).Select(i => (long)i), events.Select(e => e.Seq));
        Assert.Equal(2, events.Count);
        Assert.All(events, e => Assert.Equal("task.created", e.Type));
    }

    [Fact]
    public void Gate_verdicts_and_processes_are_kept_by_their_keys()
    {
        var red = new GateResult("tree", "command", "settings", false, 1, "tail", 12, "task-a", 1);
        _db.Transact(s => { Board.RecordGate(s, P, red); Board.RecordGate(s, P, red with { Passed = true, ExitCode = 0 }); return 0; });
        Assert.True(Board.FindGate(_db.Session, P, "tree", "command", "settings")!.Passed);
        Assert.Null(Board.FindGate(_db.Session, P, "tree", "command", "other"));
        var process = new ProcessRow("token", "task-a", 1, "agent", "executor", "boot", "ns", 42, 99);
        _db.Transact(s => { Board.RecordProcess(s, P, process); return 0; });
        Assert.Equal(process, Assert.Single(Board.LiveProcesses(_db.Session, P)));
        _db.Transact(s => { Board.EndProcess(s, P, "token", "agent"); return 0; });
        Assert.Empty(Board.LiveProcesses(_db.Session, P));
    }

    [Fact]
    public void Claims_that_never_started_are_found_by_the_claim_timeout()
    {
        string task = _db.Add("Write the parser");
        _db.Claim(_db.StartRun());
        Assert.Empty(Board.StaleClaims(_db.Session, P, 60_000));
        _db.Clock.Advance(TimeSpan.FromMinutes(2));
        Assert.Equal([(task, 1)], Board.StaleClaims(_db.Session, P, 60_000));
    }
}

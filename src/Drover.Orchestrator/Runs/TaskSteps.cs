using System.Text.Json;
using Drover.Orchestrator.Backlog;
using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Gates;
using Drover.Orchestrator.Git;
using Drover.Workflows;

namespace Drover.Orchestrator.Runs;

/// <summary>The step bodies of a task's life. Each can be repeated at any time: it looks first what is there.</summary>
internal sealed class TaskSteps(RunServices services)
{
    /// <summary>Phase of an attempt whose conflict is with the agent.</summary>
    public const string InConflict = "conflict";

    /// <summary>Phase of an attempt that conflicts again after its turn.</summary>
    public const string ConflictAgain = "conflict again";

    public static string Write(TurnGiven given) => JsonSerializer.Serialize(given, RunJson.Default.TurnGiven);

    /// <summary>Step 1: the attempt's base and where it goes on; null when the task is no longer this attempt's.</summary>
    public async Task<TaskStart?> FindStartAsync(TaskInput input, CancellationToken cancellationToken)
    {
        (TaskRow? task, AttemptRow? attempt, LandingRow? landing, RunRow? run) = await services.Client.ReadAsync(db => (
            Board.Find(db, input.Project, input.Task), Board.FindAttempt(db, input.Project, input.Task, input.Attempt),
            Board.FindLanding(db, input.Project, input.Task, input.Attempt), Board.FindRun(db, input.Project, input.Run)), cancellationToken).ConfigureAwait(false);
        if (task is null || attempt is null || run is null || task.Attempts != input.Attempt)
            return null;
        string tip = await services.Landing.ResolveTargetAsync(run.Target, cancellationToken).ConfigureAwait(false);
        bool accepted = task.Answer == "accept" && attempt.WorkOid is not null;
        bool tested = attempt.WorkOid is not null && task.Answer is null
            && (attempt.Phase is "gate" or "landing" || landing is { State: LandingState.Conflict or LandingState.Held or LandingState.Waiting });
        // A conflict that is still with the agent goes on with the same two sides; one that came back is merged anew first.
        TurnGiven? given = !accepted && attempt is { Phase: InConflict, Conflict: { } stored } ? JsonSerializer.Deserialize(stored, RunJson.Default.TurnGiven) : null;
        bool again = attempt is { Phase: ConflictAgain, WorkOid: not null };
        return new TaskStart(run.Target, attempt.BaseOid ?? tip, DateTimeOffset.FromUnixTimeMilliseconds(attempt.ClaimedAt).ToString("O"),
            given is null && (accepted || tested || again) ? "gate" : "agent", attempt.WorkOid, attempt.TreeOid, accepted, task.Answer is not null, attempt.Turns,
            attempt.ConflictTurnUsed && task.Answer is null, given);
    }

    /// <summary>Step 3: the worktree, made or adopted, with copied files and set-up.</summary>
    public async Task<WorktreeReady> PrepareWorktreeAsync(TaskInput input, TaskStart start, CancellationToken cancellationToken)
    {
        services.Live.Begin(input.Task, input.Attempt, services.Agent.Type);
        services.Live.Note(input.Task, input.Attempt, "worktree", "");
        await EndLeftoversAsync(input, cancellationToken).ConfigureAwait(false);
        Worktree worktree = await services.Worktrees.EnsureAsync(Name(input), start.BaseOid, cancellationToken).ConfigureAwait(false);
        if (CopyFiles(worktree.Path) is { } missing)
            return new WorktreeReady(worktree.Path, missing);
        // A person has seen what an earlier turn did to the control files.
        if (start.Answered)
            ForgetControl(worktree.Name);
        if (services.Settings.WorktreeSetup is not { } text || start.Entry != "agent")
            return new WorktreeReady(worktree.Path, null);
        GateCommand command = GateCommand.Parse(text);
        string record = services.State("setup", worktree.Name.Key), key = SetupCommand.KeyOf(command, worktree.Path);
        if (worktree.Adopted && File.Exists(record) && await File.ReadAllTextAsync(record, cancellationToken).ConfigureAwait(false) == key)
            return new WorktreeReady(worktree.Path, null);
        Gates.GateResult result = await services.Gates.SetUpAsync(
            command, worktree.Path, $"{worktree.Name.Key}.setup.log", input.Task, input.Attempt, cancellationToken).ConfigureAwait(false);
        if (result.Verdict == GateVerdict.Interrupted)
            throw new OperationCanceledException("set-up was interrupted", cancellationToken);
        if (!result.Passed)
            return new WorktreeReady(worktree.Path, $"worktree.setup failed ({result.Problem}); see {result.LogPath}");
        PrivateFiles.Write(record, key);
        return new WorktreeReady(worktree.Path, null);
    }

    /// <summary>Step 4: one turn of the agent, contained. A turn that was stopped has no result.</summary>
    public async Task<TurnResult> RunAgentAsync(TaskInput input, int turn, TurnGiven? given, CancellationToken cancellationToken)
    {
        await EndLeftoversAsync(input, cancellationToken).ConfigureAwait(false);
        (TaskRow task, AttemptRow attempt, AttemptRow? previous) = await services.Client.ReadAsync(db => (
            Board.Get(db, input.Project, input.Task), Board.FindAttempt(db, input.Project, input.Task, input.Attempt)!,
            input.Attempt > 1 ? Board.FindAttempt(db, input.Project, input.Task, input.Attempt - 1) : null), cancellationToken).ConfigureAwait(false);
        AttemptName name = Name(input);
        Worktree worktree = await services.Worktrees.EnsureAsync(name, attempt.BaseOid!, cancellationToken).ConfigureAwait(false);
        await services.Control.CaptureAsync(worktree, cancellationToken).ConfigureAwait(false);
        string token = GateDesk.NewToken(input.Task, input.Attempt);
        string log = services.State("logs", $"{name.Key}.{turn}.log");
        await RecordPhaseAsync(input, new AttemptFacts { Phase = given is null ? "agent" : InConflict, Agent = services.Agent.Type, LogPath = Path.GetRelativePath(services.Repository.Root, log) })
            .ConfigureAwait(false);
        services.Live.Note(input.Task, input.Attempt, "agent", "started");
        bool ran = false;
        AgentReport report;
        try
        {
            report = await RunAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (ran && e is not OperationCanceledException)
        {
            // The turn happened; what failed is our bookkeeping. Repeating the agent would be the wrong cure.
            throw new DroverException(ErrorCode.Failed, $"the agent's turn could not be recorded: {e.Message}", e);
        }
        if (report.Survivors.Count > 0)
            throw new DroverException(ErrorCode.Failed, $"{report.Survivors.Count} processes of {input.Task} cannot be ended (pid {report.Survivors[0].Pid}): end them by hand");
        if (report.Outcome == AgentOutcome.Interrupted)
            throw new OperationCanceledException("the agent was interrupted", cancellationToken);
        bool notStarted = report.Process?.End == ProcessEnd.NotStarted;
        return new TurnResult(notStarted ? "not started" : Word(report.Outcome), report.Summary, !string.IsNullOrWhiteSpace(report.Tail), report.ExitCode, report.SessionId,
            report.InputTokens + report.OutputTokens, report.CostUsd is { } usd ? (long)(usd * 1_000_000) : null, report.LimitResetAt?.ToUnixTimeMilliseconds());

        Task<AgentReport> RunAsync() => services.Gates.RecordedAsync(token, input.Task, input.Attempt, "agent", hooks => services.Agent.RunAsync(new AgentRequest
        {
            RunId = input.Run,
            TaskId = input.Task,
            Title = task.Title,
            Attempt = input.Attempt,
            Worktree = worktree.Path,
            Prompt = Prompt(task, previous, given),
            PromptPath = services.State("prompts", $"{name.Key}.{turn}.txt"),
            LogPath = log,
            TmpDir = services.State("tmp", token),
            RunToken = token,
            Environment = services.Environment,
            ResumeSessionId = attempt.SessionId,
            Clocks = new ProcessClocks(services.Settings.StartTimeout,
                services.Settings.SilenceTimeout, services.Settings.TaskTimeout),
        }, hooks with
        {
            OnStarted = (_, _) =>
            {
                ran = true;
                return Task.CompletedTask;
            },
        }, cancellationToken));
    }

    /// <summary>Step 5: everything the worktree holds as one commit, and what a person must look at first.</summary>
    public async Task<CommitResult> CommitAsync(TaskInput input, TaskStart start, TurnGiven? given, CancellationToken cancellationToken)
    {
        services.Live.Note(input.Task, input.Attempt, "commit", "");
        AttemptName name = Name(input);
        // Found, never rebuilt: a fresh worktree in place of what the agent left would look like "no change".
        switch (await services.Worktrees.OpenAsync(name, start.BaseOid, cancellationToken).ConfigureAwait(false))
        {
            case WorktreeState.Missing missing:
                return new CommitResult("", "", false, 0, null, null, missing.What);
            case WorktreeState.Open { Worktree: var worktree, Fault: var fault }:
                return await CommitAsync(input, start, given, worktree, fault, cancellationToken).ConfigureAwait(false);
            default:
                throw new InvalidOperationException("an unknown state of a worktree");
        }
    }

    private async Task<CommitResult> CommitAsync(
        TaskInput input, TaskStart start, TurnGiven? given, Worktree worktree, WorktreeFault fault, CancellationToken cancellationToken)
    {
        ControlCapture before = await services.Control.CaptureAsync(worktree, cancellationToken).ConfigureAwait(false);
        string? tampered = await RestoreControlAsync(worktree, before, fault, cancellationToken).ConfigureAwait(false);
        TaskRow task = await services.Client.ReadAsync(db => Board.Get(db, input.Project, input.Task), cancellationToken).ConfigureAwait(false);
        Work work = await services.Commits.CreateAsync(worktree, new WorkRequest
        {
            Message = task.Title,
            Identity = services.Repository.Identity(),
            Date = DateTimeOffset.Parse(start.Date, System.Globalization.CultureInfo.InvariantCulture),
            Limits = new FindingLimits { MaxDeletedPaths = services.Settings.MaxDeletedPaths },
            Turn = given is null ? null : new ConflictTurn(given.Work, given.Tip, given.Scaffold, given.Paths),
        }, cancellationToken).ConfigureAwait(false);
        (string? reason, string? question) = tampered is not null ? (PauseReason.Tampered, tampered) : Question(work.Findings);
        return new CommitResult(work.Oid, work.Tree, work.IsNoOp, work.Changes.Count, reason, question);
    }

    /// <summary>Step 7: merged onto the target's tip as it is now, and tested as exactly that tree.</summary>
    public async Task<GateOutcome> MergeAndGateAsync(TaskInput input, string target, string workOid, CancellationToken cancellationToken)
    {
        // The turn's judgement is recorded: what the control files were before it is of no further use.
        ForgetControl(Name(input));
        TaskRow task = await services.Client.ReadAsync(db => Board.Get(db, input.Project, input.Task), cancellationToken).ConfigureAwait(false);
        string tip = await services.Landing.ResolveTargetAsync(target, cancellationToken).ConfigureAwait(false);
        switch (await services.Landing.MergeAsync(tip, workOid, cancellationToken).ConfigureAwait(false))
        {
            case MergeOutcome.Conflict conflict:
                return new GateOutcome("conflict", tip, null, conflict.Hunks, conflict.Tree, conflict.Paths);
            case MergeOutcome.Unrelated:
                return new GateOutcome("broken", tip, null, "its history has nothing in common with the target", null, null);
            case MergeOutcome.Clean clean:
                string? tipTree = await services.Repository.ResolveAsync(tip + "^{tree}", cancellationToken).ConfigureAwait(false);
                if (clean.Tree == tipTree)
                    return new GateOutcome("empty", tip, clean.Tree, null, null, null);
                GateVerdictOnTree verdict = await services.Gates.TestAsync(clean.Tree, task.TestCommand, input.Task, input.Attempt, cancellationToken).ConfigureAwait(false);
                return new GateOutcome(verdict.Passed ? "passed" : verdict.Broken ? "broken" : "red", tip, clean.Tree, verdict.Passed ? null : verdict.Output, null, null);
            default:
                throw new InvalidOperationException("an unknown merge outcome");
        }
    }

    /// <summary>Step 10: the worktree with both sides joined and the markers in the files, for one more turn; null when there is no conflict any more.</summary>
    public async Task<TurnGiven?> GiveConflictAsync(TaskInput input, TaskStart start, string workOid, CancellationToken cancellationToken)
    {
        string tip = await services.Landing.ResolveTargetAsync(start.Target, cancellationToken).ConfigureAwait(false);
        if (await services.Landing.MergeAsync(tip, workOid, cancellationToken).ConfigureAwait(false) is not MergeOutcome.Conflict conflict)
            return null;
        Worktree worktree = await services.Worktrees.EnsureAsync(Name(input), start.BaseOid, cancellationToken).ConfigureAwait(false);
        ConflictTurn turn = await services.Landing.BeginConflictTurnAsync(worktree, workOid, tip, conflict, services.Repository.Identity(),
            DateTimeOffset.Parse(start.Date, System.Globalization.CultureInfo.InvariantCulture), cancellationToken).ConfigureAwait(false);
        return new TurnGiven(turn.Work, turn.Tip, turn.Scaffold, conflict.Tree, turn.Paths, conflict.Hunks);
    }

    /// <summary>Step 11: the worktree and the branch go, once every byte is under a ref.</summary>
    public async Task<bool> CleanUpAsync(TaskInput input, CancellationToken cancellationToken)
    {
        services.Live.EndAll(input.Task);
        // Another workflow may continue this very attempt; then the worktree is its own.
        AttemptRow? attempt = await services.Client.ReadAsync(db => Board.FindAttempt(db, input.Project, input.Task, input.Attempt), cancellationToken).ConfigureAwait(false);
        if (attempt is { State: not "ended" } && attempt.WorkflowId != Board.TaskWorkflowId(input.Project, input.Task, input.Attempt, input.Continuation))
            return false;
        await services.Worktrees.RemoveAsync(Name(input), cancellationToken).ConfigureAwait(false);
        string setup = services.State("setup", Name(input).Key);
        if (File.Exists(setup))
            File.Delete(setup);
        return true;
    }

    // What an agent did to the shared control files is written down before it is put back: a repeat finds nothing to compare.
    private async Task<string?> RestoreControlAsync(Worktree worktree, ControlCapture before, WorktreeFault fault, CancellationToken cancellationToken)
    {
        string record = TamperRecord(worktree.Name);
        if (fault != WorktreeFault.None && !File.Exists(record))
            PrivateFiles.Write(record, fault == WorktreeFault.LinkNotOurs ? "the agent rewrote the worktree's .git" : "the agent removed the worktree's registration");
        IReadOnlyList<ControlDifference> differences = await services.Control.CompareAsync(worktree, before, cancellationToken).ConfigureAwait(false);
        if (differences.Count > 0)
        {
            PrivateFiles.Write(record, "the agent changed " + string.Join(", ", differences.Take(5).Select(d => d.Name)) + (differences.Count > 5 ? ", …" : ""));
            IReadOnlyList<string> missed = await services.Control.RestoreAsync(worktree, before, differences, services.Time, cancellationToken).ConfigureAwait(false);
            if (missed.Count > 0)
                PrivateFiles.Write(record, await File.ReadAllTextAsync(record, cancellationToken).ConfigureAwait(false) + "; could not put back " + string.Join(", ", missed));
        }
        return File.Exists(record)
            ? await File.ReadAllTextAsync(record, cancellationToken).ConfigureAwait(false) + " (kept under .drover/tampered): --accept lands the work, --abandon gives it up"
            : null;
    }

    private string TamperRecord(AttemptName name) => services.State("control", name.Key + ".tampered");

    private void ForgetControl(AttemptName name)
    {
        services.Control.Forget(name);
        if (File.Exists(TamperRecord(name)))
            File.Delete(TamperRecord(name));
    }

    public static AttemptName Name(TaskInput input) => new(input.Task, input.Attempt);

    private Task RecordPhaseAsync(TaskInput input, AttemptFacts facts) => services.Client.TransactAsync(tx =>
        Board.RecordFacts(tx.Session, input.Project, input.Task, input.Attempt, facts));

    // What an earlier execution of this attempt left running ends before anything new starts in its worktree (X-04).
    private async Task EndLeftoversAsync(TaskInput input, CancellationToken cancellationToken)
    {
        IReadOnlyList<ProcessRow> rows = await services.Client.ReadAsync(db => Board.LiveProcesses(db, input.Project), cancellationToken).ConfigureAwait(false);
        foreach (ProcessRow row in rows.Where(r => r.Task == input.Task && r.Kind != "gate"))
            await Leftovers.EndAsync(services, row, cancellationToken).ConfigureAwait(false);
    }

    // Null when every named file is there; otherwise what is missing.
    private string? CopyFiles(string worktree)
    {
        foreach (string pattern in services.Settings.WorktreeCopy)
        {
            string from = Path.GetFullPath(Path.Combine(services.Repository.Root, pattern)), to = Path.GetFullPath(Path.Combine(worktree, pattern));
            if (!from.StartsWith(services.Repository.Root + "/", StringComparison.Ordinal) || !to.StartsWith(worktree + "/", StringComparison.Ordinal))
                throw new DroverException(ErrorCode.InvalidInput, $"worktree.copy names {pattern}, which is outside the repository");
            if (!File.Exists(from))
                return $"worktree.copy names {pattern}, which is no file in {services.Repository.Root}: put it there, or take it out of the setting";
            if (File.Exists(to))
                continue;
            Directory.CreateDirectory(Path.GetDirectoryName(to)!);
            File.Copy(from, to);
            if (!OperatingSystem.IsWindows())
                File.SetUnixFileMode(to, UnixFileMode.UserRead | UnixFileMode.UserWrite);
        }
        return null;
    }

    private string Prompt(TaskRow task, AttemptRow? previous, TurnGiven? given) => PromptBuilder.Build(new PromptParts
    {
        Title = task.Title,
        Description = task.Description,
        TestCommand = task.TestCommand ?? services.Settings.TestCommand,
        Conflict = given?.Hunks,
        GateOutput = previous?.GateOutput,
        PreviousFailure = previous?.Error,
        Note = task.AnswerNote,
    });

    private static (string? Reason, string? Question) Question(IReadOnlyList<Finding> findings)
    {
        foreach (Finding finding in findings)
        {
            string? reason = finding.Kind switch
            {
                FindingKind.Deletions => PauseReason.Deletions,
                FindingKind.Secret => PauseReason.Secret,
                FindingKind.LargeFile => PauseReason.LargeFile,
                FindingKind.ConflictMarker => PauseReason.Conflict,
                // Files hidden by the agent's own ignore file stay in the rescue ref; they hold nothing up.
                FindingKind.NewlyIgnored => null,
                _ => PauseReason.Tampered,
            };
            if (reason is not null)
                return (reason, RunFlow.OneLine($"{finding.Text}: {string.Join(", ", finding.Paths.Take(5))}{(finding.Paths.Count > 5 ? ", …" : "")}"));
        }
        return (null, null);
    }

    private static string Word(AgentOutcome outcome) => outcome switch
    {
        AgentOutcome.Succeeded => "succeeded",
        AgentOutcome.TimedOut => "timeout",
        AgentOutcome.Crashed => "crashed",
        AgentOutcome.LimitReached => "limit",
        AgentOutcome.Unknown => "unknown",
        _ => "failed",
    };
}

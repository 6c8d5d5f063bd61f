using Drover.Workflows;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

/// <summary>The options of a run, as given now; a null leaves an adopted run's value.</summary>
public sealed record RunOptions
{
#pragma warning disable CS1591 // see RunRow
    public string? Epic { get; init; }
    /// <summary>True: the run is for all epics, whatever an adopted run was for.</summary>
    public bool AllEpics { get; init; }
    public int? Workers { get; init; }
    public bool? ContinueOnFailure { get; init; }
    public int? MaxAttempts { get; init; }
    /// <summary>For the command that shows the run; not kept.</summary>
    public bool? Verbose { get; init; }
    public string? Target { get; init; }
#pragma warning restore CS1591
}

/// <summary>The run to work for.</summary>
/// <remarks><paramref name="Adopted"/>: True when it existed and is continued.</remarks>
/// <remarks><paramref name="Changes"/>: What the command changed in it, one line each (<c>workers 2 -> 4</c>).</remarks>
public sealed record OpenedRun(RunRow Run, bool Adopted, IReadOnlyList<string> Changes);

public static partial class Board
{
    /// <summary>A run; null when there is none.</summary>
    public static RunRow? FindRun(SqlSession db, string project, string runId)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.First("SELECT " + RunRow.Columns + " FROM {d}runs WHERE project = @project AND id = @run", RunRow.Read, ("@project", project), ("@run", runId));
    }

    /// <summary>The project's unfinished run; null when there is none. There is never more than one.</summary>
    public static RunRow? ActiveRun(SqlSession db, string project)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.First("SELECT " + RunRow.Columns + " FROM {d}runs WHERE project = @project AND state = 'active'", RunRow.Read, ("@project", project));
    }

    /// <summary>The newest run, ended or not.</summary>
    public static RunRow? LatestRun(SqlSession db, string project)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.First("SELECT " + RunRow.Columns + " FROM {d}runs WHERE project = @project ORDER BY started_at DESC, id DESC LIMIT 1", RunRow.Read, ("@project", project));
    }

    /// <summary>
    /// Starts a run, or adopts the unfinished one and says what changed. Whether its executor still lives is for the caller to
    /// find out before. An adopted run's target never changes: its candidates were made for it.
    /// </summary>
    /// <remarks><paramref name="defaults"/>: Every option, from settings; used for a new run.</remarks>
    /// <remarks><paramref name="given"/>: Only what was given on this command line.</remarks>
    public static OpenedRun OpenRun(SqlSession db, string project, RunOptions defaults, RunOptions given, string executorId)
    {
        ArgumentNullException.ThrowIfNull(db);
        ArgumentNullException.ThrowIfNull(defaults);
        ArgumentNullException.ThrowIfNull(given);
        if (given.Epic is { } epic)
            GetEpic(db, project, epic);
        long at = Now(db);
        if (ActiveRun(db, project) is not { } old)
        {
            string id = NewId(db, project, "run", "SELECT COUNT(*) FROM {d}runs WHERE project = @project AND id = @id");
            var run = new RunRow
            {
                Id = id,
                WorkflowId = $"drover:{project}:run:{id}",
                Epic = given.Epic,
                Workers = given.Workers ?? defaults.Workers ?? 3,
                ContinueOnFailure = given.ContinueOnFailure ?? defaults.ContinueOnFailure ?? false,
                MaxAttempts = given.MaxAttempts ?? defaults.MaxAttempts ?? 3,
                Target = given.Target ?? defaults.Target ?? throw new DroverException(ErrorCode.InvalidInput, "no target branch is set: `drover config set target <branch>`"),
                ExecutorId = executorId,
                StartedAt = at,
            };
            db.Execute("""
                INSERT INTO {d}runs (project, id, workflow_id, epic, workers, continue_on_failure, max_attempts, target, state, executor_id, started_at)
                VALUES (@project, @id, @workflow, @epic, @workers, @continue, @max, @target, 'active', @executor, @at)
                """,
                ("@project", project), ("@id", id), ("@workflow", run.WorkflowId), ("@epic", run.Epic), ("@workers", (long)run.Workers),
                ("@continue", run.ContinueOnFailure ? 1L : 0L), ("@max", (long)run.MaxAttempts),
                ("@target", run.Target), ("@executor", executorId), ("@at", at));
            Event(db, project, at, "run.started", null, run.Epic, id, ("workers", run.Workers), ("target", run.Target), ("maxAttempts", run.MaxAttempts));
            return new OpenedRun(run, false, []);
        }
        return Adopt(db, project, old, given, executorId, at);
    }

    private static OpenedRun Adopt(SqlSession db, string project, RunRow old, RunOptions given, string executorId, long at)
    {
        if (given.Target is { } target && target != old.Target)
            throw new DroverException(ErrorCode.Conflict, $"the unfinished run {old.Id} lands on {old.Target}, not on {target}: let it end first, or leave --target out");
        RunRow run = old with
        {
            Epic = given.AllEpics ? null : given.Epic ?? old.Epic,
            Workers = given.Workers ?? old.Workers,
            ContinueOnFailure = given.ContinueOnFailure ?? old.ContinueOnFailure,
            MaxAttempts = given.MaxAttempts ?? old.MaxAttempts,
            Generation = old.Generation + 1,
            ExecutorId = executorId,
            Draining = false,
            Outcome = null,
        };
        var changes = new List<string>();
        if (run.Epic != old.Epic)
            changes.Add($"epic {old.Epic ?? "all"} -> {run.Epic ?? "all"}");
        if (run.Workers != old.Workers)
            changes.Add($"workers {old.Workers} -> {run.Workers}");
        if (run.ContinueOnFailure != old.ContinueOnFailure)
            changes.Add($"continue on failure {(old.ContinueOnFailure ? "yes -> no" : "no -> yes")}");
        if (run.MaxAttempts != old.MaxAttempts)
            changes.Add($"max attempts {old.MaxAttempts} -> {run.MaxAttempts}");
        db.Execute("""
            UPDATE {d}runs SET epic = @epic, workers = @workers, continue_on_failure = @continue, max_attempts = @max,
                generation = @generation, executor_id = @executor, draining = 0, outcome = NULL
            WHERE project = @project AND id = @id
            """,
            ("@epic", run.Epic), ("@workers", (long)run.Workers), ("@continue", run.ContinueOnFailure ? 1L : 0L), ("@max", (long)run.MaxAttempts),
            ("@generation", (long)run.Generation), ("@executor", executorId),
            ("@project", project), ("@id", run.Id));
        Event(db, project, at, "run.resumed", null, run.Epic, run.Id, ("generation", run.Generation), ("changes", changes.Count == 0 ? null : string.Join("; ", changes)));
        return new OpenedRun(run, true, changes);
    }

    /// <summary>A person interrupted the run: nothing new is claimed. Returns how often it was interrupted so far.</summary>
    public static int DrainRun(SqlSession db, string project, string runId)
    {
        ArgumentNullException.ThrowIfNull(db);
        db.Execute("UPDATE {d}runs SET draining = 1, interrupts = interrupts + 1 WHERE project = @project AND id = @run AND state = 'active'",
            ("@project", project), ("@run", runId));
        if (FindRun(db, project, runId) is not { } run)
            return 0;
        if (run.Active)
            Event(db, project, Now(db), "run.interrupted", null, run.Epic, runId, ("interrupts", run.Interrupts));
        return run.Interrupts;
    }

    /// <summary>Ends the run. An interrupted run stays active, so that <c>resume</c> continues it. False: it had ended already.</summary>
    public static bool EndRun(SqlSession db, string project, string runId, RunOutcome outcome)
    {
        ArgumentNullException.ThrowIfNull(db);
        string word = outcome == RunOutcome.FinishedWithFailures ? "finished-with-failures" : outcome.ToString().ToLowerInvariant();
        long at = Now(db);
        int changed = outcome == RunOutcome.Interrupted
            ? db.Execute("UPDATE {d}runs SET outcome = @outcome WHERE project = @project AND id = @run AND state = 'active'",
                ("@outcome", word), ("@project", project), ("@run", runId))
            : db.Execute("UPDATE {d}runs SET state = 'ended', outcome = @outcome, ended_at = @at WHERE project = @project AND id = @run AND state = 'active'",
                ("@outcome", word), ("@at", at), ("@project", project), ("@run", runId));
        if (changed > 0)
            Event(db, project, at, "run.ended", null, null, runId, ("outcome", word));
        return changed > 0;
    }

    /// <summary>The task whose final failure stopped this run; null when the run goes on after failures or none failed in it. A task that a person abandoned is no failure of the run.</summary>
    public static string? StoppedBy(SqlSession db, string project, RunRow run)
    {
        ArgumentNullException.ThrowIfNull(db);
        ArgumentNullException.ThrowIfNull(run);
        return run.ContinueOnFailure ? null
            : db.Text("SELECT id FROM {d}tasks WHERE project = @project AND run_id = @run AND status = 'failed' AND COALESCE(error_class, '') <> 'abandoned' ORDER BY updated_at LIMIT 1", ("@project", project), ("@run", run.Id));
    }

    /// <summary>How a run stands, by the one readiness function.</summary>
    public static RunVerdict VerdictOf(SqlSession db, string project, RunRow run) =>
        Readiness.Load(db, project, run.Epic).Verdict(run.Draining, StoppedBy(db, project, run));
}

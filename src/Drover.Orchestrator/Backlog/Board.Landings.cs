using Drover.Workflows;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

public static partial class Board
{
    /// <summary>
    /// Takes the lock of a target's row until the transaction ends. Inserting a candidate and "the lane found no candidate" both
    /// take it, so that a candidate is never inserted into a lane that is about to end.
    /// </summary>
    public static void LockTarget(SqlSession db, string project, string target)
    {
        ArgumentNullException.ThrowIfNull(db);
        db.Execute("INSERT INTO {d}targets AS t (project, target) VALUES (@project, @target) ON CONFLICT (project, target) DO UPDATE SET touched = t.touched + 1",
            ("@project", project), ("@target", target));
    }

    /// <summary>
    /// Queues an attempt's commit for landing, under the lock of the target's row. Repeating it with the same commit changes
    /// nothing; after a conflict, a red gate, a hold or a withdrawal the row is queued anew. False: the attempt is no longer the
    /// task's running one, or it is already intended or landed with another commit.
    /// </summary>
    public static bool InsertCandidate(SqlSession db, string project, string task, int attempt, string target, string workOid, string? treeOid, string? evidence = null)
    {
        if (Find(db, project, task) is not { Status: StoredStatus.InProgress } row || row.Attempts != attempt)
            return false;
        LockTarget(db, project, target);
        if (FindLanding(db, project, task, attempt) is { } known)
        {
            if (known.State is LandingState.Intended or LandingState.Landed)
                return known.WorkOid == workOid;
            if (known.State == LandingState.Waiting && known.WorkOid == workOid && known.Evidence == evidence)
                return true;
        }
        long at = Now(db), seq = NextSeq(db, project, task: true);
        db.Execute("""
            INSERT INTO {d}landings (project, task, attempt, target, work_oid, tree_oid, state, evidence, queued_at, queued_seq, updated_at)
            VALUES (@project, @task, @attempt, @target, @work, @tree, 'waiting', @evidence, @at, @seq, @at2)
            ON CONFLICT (project, task, attempt) DO UPDATE SET target = excluded.target, work_oid = excluded.work_oid, tree_oid = excluded.tree_oid,
                state = 'waiting', evidence = excluded.evidence, intended_oid = NULL, intended_base = NULL, message = NULL, commit_date = NULL,
                hold_reason = NULL, hold_paths = NULL, queued_at = excluded.queued_at, queued_seq = excluded.queued_seq, updated_at = excluded.updated_at
            """,
            ("@project", project), ("@task", task), ("@attempt", (long)attempt), ("@target", target), ("@work", workOid), ("@tree", treeOid),
            ("@evidence", evidence), ("@at", at), ("@seq", seq), ("@at2", at));
        Event(db, project, at, "landing.queued", task, row.Epic, row.RunId, ("attempt", attempt), ("target", target), ("work", workOid));
        return true;
    }

    /// <summary>A task's candidate; null when it has none.</summary>
    public static LandingRow? FindLanding(SqlSession db, string project, string task, int attempt)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.First("SELECT " + LandingRow.Columns + " FROM {d}landings WHERE project = @project AND task = @task AND attempt = @attempt", LandingRow.Read,
            ("@project", project), ("@task", task), ("@attempt", (long)attempt));
    }

    /// <summary>
    /// The candidates the lane has to look at, intended ones first (they must be settled before anything else), then held and
    /// waiting ones in the order in which they were queued. Call <see cref="LockTarget"/> before, when an empty list ends the lane.
    /// </summary>
    public static IReadOnlyList<LandingRow> OpenCandidates(SqlSession db, string project, string target)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.Query("SELECT " + LandingRow.Columns + """
             FROM {d}landings WHERE project = @project AND target = @target AND state IN ('intended', 'waiting', 'held')
            ORDER BY CASE state WHEN 'intended' THEN 0 ELSE 1 END, queued_seq
            """, LandingRow.Read, ("@project", project), ("@target", target));
    }

    /// <summary>
    /// Records the commit that the target is about to get, before it gets it. From here nothing withdraws the candidate. Recording
    /// the same intent again is true; false: the candidate is no longer waiting or held, or the task was ended meanwhile.
    /// </summary>
    public static bool RecordIntent(SqlSession db, string project, string task, int attempt, string intendedOid, string intendedBase, string message, string commitDate)
    {
        ArgumentNullException.ThrowIfNull(db);
        LandingRow? known = FindLanding(db, project, task, attempt);
        if (known?.State == LandingState.Intended)
            return known.IntendedOid == intendedOid;
        if (Applicable(db, project, task, attempt, TaskCommand.Land) is not { } row)
            return false;
        long at = Now(db);
        int changed = db.Execute("""
            UPDATE {d}landings SET state = 'intended', intended_oid = @oid, intended_base = @base, message = @message, commit_date = @date,
                hold_reason = NULL, hold_paths = NULL, updated_at = @at
            WHERE project = @project AND task = @task AND attempt = @attempt AND state IN ('waiting', 'held')
            """,
            ("@oid", intendedOid), ("@base", intendedBase), ("@message", message), ("@date", commitDate), ("@at", at),
            ("@project", project), ("@task", task), ("@attempt", (long)attempt));
        if (changed > 0)
            Event(db, project, at, "landing.intended", task, row.Epic, row.RunId, ("attempt", attempt), ("oid", intendedOid), ("base", intendedBase));
        return changed > 0;
    }

    /// <summary>The intended commit did not reach the target (it moved): the candidate waits again. False: it was not intended with this oid.</summary>
    public static bool ClearIntent(SqlSession db, string project, string task, int attempt, string intendedOid)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.Execute("""
            UPDATE {d}landings SET state = 'waiting', intended_oid = NULL, intended_base = NULL, updated_at = @at
            WHERE project = @project AND task = @task AND attempt = @attempt AND state = 'intended' AND intended_oid = @oid
            """,
            ("@at", Now(db)), ("@project", project), ("@task", task), ("@attempt", (long)attempt), ("@oid", intendedOid)) > 0;
    }

    /// <summary>
    /// The change is proved to be on the target: landing, attempt and task are completed together; dependents follow by
    /// derivation. Repeating it is true. False: the task is not this attempt's any more.
    /// </summary>
    /// <remarks><paramref name="landedOid"/>: The first-parent child of the target that carries the trailers.</remarks>
    public static bool MarkLanded(SqlSession db, string project, string task, int attempt, string landedOid)
    {
        if (Find(db, project, task) is not { } row || row.Attempts != attempt)
            return false;
        if (row.Status == StoredStatus.Completed)
            return row.LandedOid == landedOid;
        if (TaskStates.Next(row.Status, TaskCommand.Land) is null)
            return false;
        long at = Now(db);
        int changed = db.Execute("""
            UPDATE {d}tasks SET status = 'completed', outcome = 'landed', landed_oid = @oid, landed_at = @at, last_error = NULL, error_class = NULL,
                continues = NULL, not_before = NULL, answer = NULL, answer_note = NULL, updated_at = @at2
            WHERE project = @project AND id = @task AND status = @from AND attempts = @attempt
            """,
            ("@oid", landedOid), ("@at", at), ("@at2", at), ("@project", project), ("@task", task), ("@from", row.Status.Word()), ("@attempt", (long)attempt));
        if (changed == 0)
            return false;
        db.Execute("""
            UPDATE {d}landings SET state = 'landed', intended_oid = @oid, hold_reason = NULL, hold_paths = NULL, updated_at = @at
            WHERE project = @project AND task = @task AND attempt = @attempt
            """, ("@oid", landedOid), ("@at", at), ("@project", project), ("@task", task), ("@attempt", (long)attempt));
        EndAttempt(db, project, task, attempt, "landed", null, null, at);
        Event(db, project, at, "task.completed", task, row.Epic, row.RunId, ("attempt", attempt), ("outcome", "landed"), ("oid", landedOid));
        return true;
    }

    /// <summary>
    /// The lane rejects a candidate: <see cref="LandingState.Conflict"/> or <see cref="LandingState.Red"/>; the attempt's workflow reads the row and goes on.
    /// False: it was not waiting, held or intended any more.
    /// </summary>
    public static bool RejectCandidate(SqlSession db, string project, string task, int attempt, string state, string reason)
    {
        ArgumentNullException.ThrowIfNull(db);
        if (state is not (LandingState.Conflict or LandingState.Red))
            throw new ArgumentException("conflict or red", nameof(state));
        return SetCandidate(db, project, task, attempt, state, reason, null, "landing." + state);
    }

    /// <summary>The lane holds a candidate: it can land when the reason is gone (<c>checkout</c> with the paths). False as in <see cref="RejectCandidate"/>.</summary>
    public static bool HoldCandidate(SqlSession db, string project, string task, int attempt, string reason, IReadOnlyCollection<string> paths)
    {
        ArgumentNullException.ThrowIfNull(paths);
        string? text = paths.Count == 0 ? null : string.Join('\n', paths);
        if (FindLanding(db, project, task, attempt) is { State: LandingState.Held } known && known.HoldReason == reason && known.HoldPaths == text)
            return true;
        return SetCandidate(db, project, task, attempt, LandingState.Held, reason, text, "landing.held");
    }

    private static bool SetCandidate(SqlSession db, string project, string task, int attempt, string state, string reason, string? paths, string type)
    {
        long at = Now(db);
        int changed = db.Execute("""
            UPDATE {d}landings SET state = @state, hold_reason = @reason, hold_paths = @paths, intended_oid = NULL, intended_base = NULL, updated_at = @at
            WHERE project = @project AND task = @task AND attempt = @attempt AND state IN ('waiting', 'held', 'intended')
            """,
            ("@state", state), ("@reason", reason), ("@paths", paths), ("@at", at), ("@project", project), ("@task", task), ("@attempt", (long)attempt));
        if (changed > 0 && Find(db, project, task) is { } row)
            Event(db, project, at, type, task, row.Epic, row.RunId, ("attempt", attempt), ("reason", reason), ("paths", paths));
        return changed > 0;
    }

    /// <summary>True when a commit of the task may already be on its way to the target: cancel, failure and pause must wait for the result.</summary>
    public static bool IsIntended(SqlSession db, string project, string task)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.Number("SELECT COUNT(*) FROM {d}landings WHERE project = @project AND task = @task AND state = 'intended'", ("@project", project), ("@task", task)) > 0;
    }

    private static void Withdraw(SqlSession db, string project, string task, long at) =>
        db.Execute("""
            UPDATE {d}landings SET state = 'withdrawn', updated_at = @at WHERE project = @project AND task = @task AND state IN ('waiting', 'held')
            """, ("@at", at), ("@project", project), ("@task", task));

    /// <summary>Keeps the verdict of a gate on a tree, so that an identical tree is not tested again.</summary>
    public static void RecordGate(SqlSession db, string project, GateResult result)
    {
        ArgumentNullException.ThrowIfNull(db);
        ArgumentNullException.ThrowIfNull(result);
        db.Execute("""
            INSERT INTO {d}gate_results (project, tree_oid, command_digest, settings_digest, passed, exit_code, output, duration_ms, task, attempt, at)
            VALUES (@project, @tree, @command, @settings, @passed, @exit, @output, @duration, @task, @attempt, @at)
            ON CONFLICT (project, tree_oid, command_digest, settings_digest) DO UPDATE SET passed = excluded.passed, exit_code = excluded.exit_code,
                output = excluded.output, duration_ms = excluded.duration_ms, task = excluded.task, attempt = excluded.attempt, at = excluded.at
            """,
            ("@project", project), ("@tree", result.TreeOid), ("@command", result.CommandDigest), ("@settings", result.SettingsDigest),
            ("@passed", result.Passed ? 1L : 0L), ("@exit", result.ExitCode is { } exit ? (long)exit : null), ("@output", result.Output),
            ("@duration", result.DurationMs), ("@task", result.Task), ("@attempt", result.Attempt is { } attempt ? (long)attempt : null), ("@at", Now(db)));
    }

    /// <summary>The kept verdict for a tree under a command and gate settings; null when it was never tested so.</summary>
    public static GateResult? FindGate(SqlSession db, string project, string treeOid, string commandDigest, string settingsDigest)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.First("""
            SELECT passed, exit_code, output, duration_ms, task, attempt FROM {d}gate_results
            WHERE project = @project AND tree_oid = @tree AND command_digest = @command AND settings_digest = @settings
            """,
            r => new GateResult(treeOid, commandDigest, settingsDigest, r.GetInt64(0) != 0, (int?)r.NumberOrNull(1), r.TextOrNull(2), r.GetInt64(3), r.TextOrNull(4), (int?)r.NumberOrNull(5)),
            ("@project", project), ("@tree", treeOid), ("@command", commandDigest), ("@settings", settingsDigest));
    }

    /// <summary>Records a started process before anything depends on it. Repeating the same token and kind replaces the row.</summary>
    public static void RecordProcess(SqlSession db, string project, ProcessRow process)
    {
        ArgumentNullException.ThrowIfNull(db);
        ArgumentNullException.ThrowIfNull(process);
        db.Execute("""
            INSERT INTO {d}processes (project, token, task, attempt, kind, executor_id, boot_id, pid_ns, pid, start_ticks, started_at)
            VALUES (@project, @token, @task, @attempt, @kind, @executor, @boot, @ns, @pid, @ticks, @at)
            ON CONFLICT (project, token, kind) DO UPDATE SET executor_id = excluded.executor_id, boot_id = excluded.boot_id, pid_ns = excluded.pid_ns,
                pid = excluded.pid, start_ticks = excluded.start_ticks, started_at = excluded.started_at, ended_at = NULL
            """,
            ("@project", project), ("@token", process.Token), ("@task", process.Task), ("@attempt", (long)process.Attempt), ("@kind", process.Kind),
            ("@executor", process.ExecutorId), ("@boot", process.BootId), ("@ns", process.PidNamespace), ("@pid", (long)process.Pid),
            ("@ticks", process.StartTicks), ("@at", Now(db)));
    }

    /// <summary>The process tree of this token is proved to be gone.</summary>
    public static void EndProcess(SqlSession db, string project, string token, string kind)
    {
        ArgumentNullException.ThrowIfNull(db);
        db.Execute("UPDATE {d}processes SET ended_at = @at WHERE project = @project AND token = @token AND kind = @kind AND ended_at IS NULL",
            ("@at", Now(db)), ("@project", project), ("@token", token), ("@kind", kind));
    }

    /// <summary>The processes that are not known to be gone.</summary>
    public static IReadOnlyList<ProcessRow> LiveProcesses(SqlSession db, string project)
    {
        ArgumentNullException.ThrowIfNull(db);
        return db.Query("""
            SELECT token, task, attempt, kind, executor_id, boot_id, pid_ns, pid, start_ticks FROM {d}processes
            WHERE project = @project AND ended_at IS NULL ORDER BY started_at, token
            """,
            r => new ProcessRow(r.GetString(0), r.GetString(1), (int)r.GetInt64(2), r.GetString(3), r.GetString(4), r.GetString(5), r.GetString(6), (int)r.GetInt64(7), r.GetInt64(8)),
            ("@project", project));
    }
}

/// <summary>The verdict of a gate on one exact tree. The three digests are its key.</summary>
/// <remarks><paramref name="Output"/>: The tail of its output.</remarks>
public sealed record GateResult(string TreeOid, string CommandDigest, string SettingsDigest, bool Passed, int? ExitCode, string? Output, long DurationMs, string? Task, int? Attempt);

/// <summary>A process that Drover started. <paramref name="Kind"/> is agent, gate or setup; boot id, PID namespace, pid and start ticks prove its identity.</summary>
public sealed record ProcessRow(string Token, string Task, int Attempt, string Kind, string ExecutorId, string BootId, string PidNamespace, int Pid, long StartTicks);

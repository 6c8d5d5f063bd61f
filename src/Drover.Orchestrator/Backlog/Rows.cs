using System.Data.Common;
using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

/// <summary>Why a task waits for a person; the stored words of <c>pause_reason</c>.</summary>
public static class PauseReason
{
    /// <summary>The change conflicts with the target and the agent's turn did not settle it.</summary>
    public const string Conflict = "conflict";
    /// <summary>The change deletes more paths than <c>landing.maxDeletedPaths</c>.</summary>
    public const string Deletions = "deletions";
    /// <summary>The change holds something that looks like a key.</summary>
    public const string Secret = "secret";
    /// <summary>The change holds a file over the size limit.</summary>
    public const string LargeFile = "large-file";
    /// <summary>The worktree's git data was rewritten.</summary>
    public const string Tampered = "tampered";
    /// <summary>The worktree's set-up command failed.</summary>
    public const string Setup = "setup";

    /// <summary>All of them.</summary>
    public static IReadOnlyList<string> All { get; } = [Conflict, Deletions, Secret, LargeFile, Tampered, Setup];
}

/// <summary>The stored words of a landing candidate's state.</summary>
public static class LandingState
{
    /// <summary>Queued for the landing lane.</summary>
    public const string Waiting = "waiting";
    /// <summary>The oid that the target is about to get is recorded; nothing may withdraw it now.</summary>
    public const string Intended = "intended";
    /// <summary>The target holds it.</summary>
    public const string Landed = "landed";
    /// <summary>Taken back before the intent (cancel, pause, failure).</summary>
    public const string Withdrawn = "withdrawn";
    /// <summary>It does not merge with the target.</summary>
    public const string Conflict = "conflict";
    /// <summary>The gate was red on the merged tree.</summary>
    public const string Red = "red";
    /// <summary>Waits for the user's checkout or for a person.</summary>
    public const string Held = "held";
}

/// <summary>An epic: a named group of tasks.</summary>
public sealed record EpicRow(string Id, string Title, string Description, long CreatedAt);

/// <summary>A task as stored. Times are milliseconds since the Unix epoch.</summary>
public sealed record TaskRow
{
#pragma warning disable CS1591 // the columns are described in BacklogSchema
    public required string Id { get; init; }
    public string? Epic { get; init; }
    public string? Parent { get; init; }
    public int Sequence { get; init; }
    public required string Title { get; init; }
    public string Description { get; init; } = "";
    public string Type { get; init; } = "other";
    public int Priority { get; init; }
    public StoredStatus Status { get; init; }
    public string? PauseReason { get; init; }
    public string? Question { get; init; }
    /// <summary><c>accept</c> or <c>continue</c>: what a person answered; kept until the attempt ends.</summary>
    public string? Answer { get; init; }
    public string? AnswerNote { get; init; }
    public string? TestCommand { get; init; }
    /// <summary>Null: the run's limit.</summary>
    public int? MaxAttempts { get; init; }
    /// <summary>The highest attempt number ever given; never reused, never lowered.</summary>
    public int Attempts { get; init; }
    /// <summary>Attempts that count against the limit since the last reset.</summary>
    public int Consumed { get; init; }
    /// <summary>The attempt that the next claim continues; null when it starts a new one.</summary>
    public int? Continues { get; init; }
    /// <summary><c>landed</c> or <c>no-op</c> for a completed task.</summary>
    public string? Outcome { get; init; }
    public string? NoOpReason { get; init; }
    public string? LastError { get; init; }
    public string? ErrorClass { get; init; }
    public string? LandedOid { get; init; }
    public long? LandedAt { get; init; }
    public string? RunId { get; init; }
    public long? ClaimedAt { get; init; }
    public long? NotBefore { get; init; }
    public string? WorkflowId { get; init; }
    public long CreatedAt { get; init; }
    public long CreatedSeq { get; init; }
    public long UpdatedAt { get; init; }

    internal const string Columns = """
        id, epic, parent, sequence, title, description, type, priority, status, pause_reason, question, answer, answer_note,
        test_command, max_attempts, attempts, consumed, continues, outcome, noop_reason, last_error, error_class, landed_oid, landed_at,
        run_id, claimed_at, not_before, workflow_id, created_at, created_seq, updated_at
        """;

    internal static TaskRow Read(DbDataReader r) => new()
    {
        Id = r.GetString(0),
        Epic = r.TextOrNull(1),
        Parent = r.TextOrNull(2),
        Sequence = (int)r.GetInt64(3),
        Title = r.GetString(4),
        Description = r.GetString(5),
        Type = r.GetString(6),
        Priority = (int)r.GetInt64(7),
        Status = TaskStates.Parse(r.GetString(8)),
        PauseReason = r.TextOrNull(9),
        Question = r.TextOrNull(10),
        Answer = r.TextOrNull(11),
        AnswerNote = r.TextOrNull(12),
        TestCommand = r.TextOrNull(13),
        MaxAttempts = (int?)r.NumberOrNull(14),
        Attempts = (int)r.GetInt64(15),
        Consumed = (int)r.GetInt64(16),
        Continues = (int?)r.NumberOrNull(17),
        Outcome = r.TextOrNull(18),
        NoOpReason = r.TextOrNull(19),
        LastError = r.TextOrNull(20),
        ErrorClass = r.TextOrNull(21),
        LandedOid = r.TextOrNull(22),
        LandedAt = r.NumberOrNull(23),
        RunId = r.TextOrNull(24),
        ClaimedAt = r.NumberOrNull(25),
        NotBefore = r.NumberOrNull(26),
        WorkflowId = r.TextOrNull(27),
        CreatedAt = r.GetInt64(28),
        CreatedSeq = r.GetInt64(29),
        UpdatedAt = r.GetInt64(30),
    };
}

/// <summary>One attempt of a task. Times are milliseconds since the Unix epoch; paths are relative to the repository.</summary>
public sealed record AttemptRow
{
    public required string Task { get; init; }
    public int Number { get; init; }
    /// <summary>How often the same attempt was continued by a new workflow; 0 for the first.</summary>
    public int Continuation { get; init; }
    public string? RunId { get; init; }
    public required string WorkflowId { get; init; }
    /// <summary><c>claimed, running, released, paused, ended</c>.</summary>
    public required string State { get; init; }
    /// <summary>What the attempt does now: <c>worktree, setup, agent, commit, gate, landing</c>; for people.</summary>
    public string? Phase { get; init; }
    public string? BaseOid { get; init; }
    public string? Worktree { get; init; }
    public string? Branch { get; init; }
    public string? Agent { get; init; }
    public string? SessionId { get; init; }
    public string? WorkOid { get; init; }
    public string? TreeOid { get; init; }
    public long ClaimedAt { get; init; }
    public long? StartedAt { get; init; }
    public long? EndedAt { get; init; }
    /// <summary><c>landed, no-op, failed, cancelled, abandoned</c>; null while it lives.</summary>
    public string? Outcome { get; init; }
    public string? ErrorClass { get; init; }
    public string? Error { get; init; }
    public string? GateOutput { get; init; }
    public int Turns { get; init; }
    public bool ConflictTurnUsed { get; init; }
    /// <summary>The conflict that was turned over to the agent; null when there was none.</summary>
    public string? Conflict { get; init; }
    public bool Consumed { get; init; }
    public long? Tokens { get; init; }
    public long? CostMicros { get; init; }
    public string? LogPath { get; init; }

    internal const string Columns = """
        task, n, continuation, run_id, workflow_id, state, phase, base_oid, worktree, branch, agent, session_id, work_oid, tree_oid,
        claimed_at, started_at, ended_at, outcome, error_class, error, gate_output, turns, conflict_turn_used, consumed, tokens, cost_micros, log_path, conflict
        """;

    internal static AttemptRow Read(DbDataReader r) => new()
    {
        Task = r.GetString(0),
        Number = (int)r.GetInt64(1),
        Continuation = (int)r.GetInt64(2),
        RunId = r.TextOrNull(3),
        WorkflowId = r.GetString(4),
        State = r.GetString(5),
        Phase = r.TextOrNull(6),
        BaseOid = r.TextOrNull(7),
        Worktree = r.TextOrNull(8),
        Branch = r.TextOrNull(9),
        Agent = r.TextOrNull(10),
        SessionId = r.TextOrNull(11),
        WorkOid = r.TextOrNull(12),
        TreeOid = r.TextOrNull(13),
        ClaimedAt = r.GetInt64(14),
        StartedAt = r.NumberOrNull(15),
        EndedAt = r.NumberOrNull(16),
        Outcome = r.TextOrNull(17),
        ErrorClass = r.TextOrNull(18),
        Error = r.TextOrNull(19),
        GateOutput = r.TextOrNull(20),
        Turns = (int)r.GetInt64(21),
        ConflictTurnUsed = r.GetInt64(22) != 0,
        Consumed = r.GetInt64(23) != 0,
        Tokens = r.NumberOrNull(24),
        CostMicros = r.NumberOrNull(25),
        LogPath = r.TextOrNull(26),
        Conflict = r.TextOrNull(27),
    };
}

/// <summary>A landing candidate. <c>State</c> is one of <see cref="LandingState"/>.</summary>
public sealed record LandingRow
{
    public required string Task { get; init; }
    public int Attempt { get; init; }
    public required string Target { get; init; }
    public required string WorkOid { get; init; }
    public string? TreeOid { get; init; }
    public required string State { get; init; }
    public string? IntendedOid { get; init; }
    public string? IntendedBase { get; init; }
    public string? Message { get; init; }
    public string? CommitDate { get; init; }
    public string? Evidence { get; init; }
    public string? HoldReason { get; init; }
    /// <summary>The paths that hold the landing, one per line.</summary>
    public string? HoldPaths { get; init; }
    public long QueuedAt { get; init; }
    public long QueuedSeq { get; init; }
    public long UpdatedAt { get; init; }

    internal const string Columns = """
        task, attempt, target, work_oid, tree_oid, state, intended_oid, intended_base, message, commit_date, evidence,
        hold_reason, hold_paths, queued_at, queued_seq, updated_at
        """;

    internal static LandingRow Read(DbDataReader r) => new()
    {
        Task = r.GetString(0),
        Attempt = (int)r.GetInt64(1),
        Target = r.GetString(2),
        WorkOid = r.GetString(3),
        TreeOid = r.TextOrNull(4),
        State = r.GetString(5),
        IntendedOid = r.TextOrNull(6),
        IntendedBase = r.TextOrNull(7),
        Message = r.TextOrNull(8),
        CommitDate = r.TextOrNull(9),
        Evidence = r.TextOrNull(10),
        HoldReason = r.TextOrNull(11),
        HoldPaths = r.TextOrNull(12),
        QueuedAt = r.GetInt64(13),
        QueuedSeq = r.GetInt64(14),
        UpdatedAt = r.GetInt64(15),
    };
}

/// <summary>A run and its options: the options are columns, so that a later command may change them.</summary>
public sealed record RunRow
{
    public required string Id { get; init; }
    public required string WorkflowId { get; init; }
    public string? Epic { get; init; }
    public int Workers { get; init; }
    public bool ContinueOnFailure { get; init; }
    public int MaxAttempts { get; init; }
    public required string Target { get; init; }
    /// <summary>False when the run has ended.</summary>
    public bool Active { get; init; } = true;
    /// <summary>Raised by every command that adopts the run.</summary>
    public int Generation { get; init; } = 1;
    public string? ExecutorId { get; init; }
    public int Interrupts { get; init; }
    /// <summary>True after an interrupt: nothing new is claimed.</summary>
    public bool Draining { get; init; }
    public long StartedAt { get; init; }
    public long? EndedAt { get; init; }
    public string? Outcome { get; init; }

    internal const string Columns = """
        id, workflow_id, epic, workers, continue_on_failure, max_attempts, target, state, generation, executor_id,
        interrupts, draining, started_at, ended_at, outcome
        """;

    internal static RunRow Read(DbDataReader r) => new()
    {
        Id = r.GetString(0),
        WorkflowId = r.GetString(1),
        Epic = r.TextOrNull(2),
        Workers = (int)r.GetInt64(3),
        ContinueOnFailure = r.GetInt64(4) != 0,
        MaxAttempts = (int)r.GetInt64(5),
        Target = r.GetString(6),
        Active = r.GetString(7) == "active",
        Generation = (int)r.GetInt64(8),
        ExecutorId = r.TextOrNull(9),
        Interrupts = (int)r.GetInt64(10),
        Draining = r.GetInt64(11) != 0,
        StartedAt = r.GetInt64(12),
        EndedAt = r.NumberOrNull(13),
        Outcome = r.TextOrNull(14),
    };
}
#pragma warning restore CS1591

/// <summary>One entry of the event log. <paramref name="Seq"/> has no gaps within a project; <paramref name="Data"/> is a JSON object.</summary>
public sealed record EventRow(long Seq, string? Task, string? Epic, string? Run, string Type, long At, string Data);

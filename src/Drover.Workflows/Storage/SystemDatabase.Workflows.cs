using System.Data.Common;

namespace Drover.Workflows.Storage;

/// <summary>A workflow about to be inserted. Null queue = direct start.</summary>
internal sealed record NewWorkflow
{
    public required string Id { get; init; }
    public required string Name { get; init; }
    public required string Inputs { get; init; }
    public string? Version { get; init; }
    public string? ExecutorId { get; init; }
    public string? QueueName { get; init; }
    public string? DeduplicationId { get; init; }
    public bool ReturnDeduplicated { get; init; }
    public int Priority { get; init; }
    public long? TimeoutMs { get; init; }
    public long? DelayMs { get; init; }
    public string? ParentId { get; init; }
    public string Token { get; init; } = SystemDatabase.NewToken();
}

/// <summary>What an insert found: <see cref="IsOurs"/> is true only when this call created the row.</summary>
internal sealed record InsertedWorkflow(string Id, bool IsOurs, WorkflowState State, long? DeadlineMs);

/// <summary>A row of a workflow's history.</summary>
internal sealed record RecordedStep(int Id, string Name, string? Output, string? Error, string? ChildId, string? Format);

/// <summary>A workflow that this executor owns now, with everything it needs to run.</summary>
internal sealed record ClaimedWorkflow(
    string Id, string Name, string? Inputs, string? Format, string Token, string? QueueName, long RecoveryAttempts,
    long? DeadlineMs, long StalledRecoveries, IReadOnlyDictionary<int, RecordedStep> History);

/// <summary>How an execution ended. Exactly one of output and error is set.</summary>
internal sealed record Outcome(string? Output, string? Error, NewWorkflow? Successor = null, int SuccessorStepId = -1);

internal sealed partial class SystemDatabase
{
    private const string InsertStatusSql = """
        INSERT INTO {p}workflow_status (workflow_uuid, status, name, authenticated_user, assumed_role, authenticated_roles, executor_id,
            created_at, updated_at, application_version, application_id, recovery_attempts, queue_name, workflow_timeout_ms,
            workflow_deadline_epoch_ms, deduplication_id, priority, owner_xid, parent_workflow_id, serialization,
            delay_until_epoch_ms, application_name, creator_xid)
        VALUES (@id, @status, @name, '', '', '[]', @executor, {now}, {now}, @version, '', @attempts, @queue, @timeout,
            CASE WHEN @queue IS NULL AND @timeout IS NOT NULL THEN {now} + @timeout END, @dedup, @priority,
            CASE WHEN @queue IS NULL THEN @token END, @parent, 'portable_json',
            CASE WHEN @delay IS NOT NULL THEN {now} + @delay END, @app, @token)
        ON CONFLICT (workflow_uuid) DO NOTHING
        """;

    private const string InsertInputSql = """
        INSERT INTO {p}workflow_input (workflow_uuid, inputs, retention_timestamp) VALUES (@id, @inputs, {now})
        ON CONFLICT (workflow_uuid) DO NOTHING
        """;

    public Task<InsertedWorkflow> InsertAsync(NewWorkflow workflow) =>
        Writer.WriteAsync(workflow.Id, session => Insert(session, workflow), nudges: workflow.QueueName is not null);

    /// <summary>Inserts the rows of a workflow, or finds the one that has its id or its deduplication id.</summary>
    public InsertedWorkflow Insert(SqlSession session, NewWorkflow workflow)
    {
        if (workflow is { DeduplicationId: { } dedup, QueueName: { } queue })
        {
            string? holder = session.Text(
                "SELECT workflow_uuid FROM {p}workflow_status WHERE queue_name = @queue AND deduplication_id = @dedup",
                ("@queue", queue), ("@dedup", dedup));
            if (holder is not null && holder != workflow.Id)
            {
                if (workflow.ReturnDeduplicated)
                    return Existing(session, holder, workflow);
                throw new DroverException(ErrorCode.Deduplicated,
                    $"queue {queue} already holds a workflow with the deduplication id {dedup}: {holder}");
            }
        }

        if (workflow.ExecutorId is { } executor && !IsLive(session, executor))
            throw new DroverException(ErrorCode.Unavailable, "this executor has stopped or was taken over: it can start nothing more");
        string status = workflow.QueueName is null ? "PENDING" : workflow.DelayMs > 0 ? "DELAYED" : "ENQUEUED";
        int rows = session.Execute(InsertStatusSql,
            ("@id", workflow.Id), ("@status", status), ("@name", workflow.Name), ("@executor", workflow.ExecutorId),
            ("@version", workflow.Version), ("@attempts", workflow.QueueName is null ? 1L : 0L), ("@queue", workflow.QueueName),
            ("@timeout", workflow.TimeoutMs), ("@dedup", workflow.DeduplicationId), ("@priority", (long)workflow.Priority),
            ("@token", workflow.Token), ("@parent", workflow.ParentId), ("@delay", workflow.DelayMs > 0 ? workflow.DelayMs : null),
            ("@app", ApplicationName));
        if (rows == 0)
            return Existing(session, workflow.Id, workflow);
        session.Execute(InsertInputSql, ("@id", workflow.Id), ("@inputs", workflow.Inputs));
        long? deadline = workflow is { QueueName: null, TimeoutMs: { } timeout } ? session.NowMs + timeout : null;
        return new InsertedWorkflow(workflow.Id, true, WorkflowStates.Parse(status), deadline);
    }

    // The row of an earlier insert stays as it is; the same creator token is this insert's own lost acknowledgement.
    private static InsertedWorkflow Existing(SqlSession session, string id, NewWorkflow wanted)
    {
        (string? name, string? creator, string? status, long? deadline) = session.First(
            "SELECT name, creator_xid, status, workflow_deadline_epoch_ms FROM {p}workflow_status WHERE workflow_uuid = @id",
            r => (r.TextOrNull(0), r.TextOrNull(1), r.TextOrNull(2), r.NumberOrNull(3)), ("@id", id));
        if (name != wanted.Name)
        {
            throw new DroverException(ErrorCode.Conflict,
                $"workflow id {id} belongs to a workflow named {name}, not {wanted.Name}: choose another id");
        }
        return new InsertedWorkflow(id, creator == wanted.Token, WorkflowStates.Parse(status), deadline);
    }

    /// <summary>Claims up to <paramref name="room"/> workflows of a queue for this executor, with their inputs and histories.</summary>
    /// <remarks>Only of the given names: the others wait for a program that has their body.</remarks>
    public Task<List<ClaimedWorkflow>> ClaimAsync(
        string queue, int? globalConcurrency, int room, string executorId, string version, IReadOnlyCollection<string> names, string token)
    {
        return Writer.WriteAsync("", session => IsLive(session, executorId)
            ? Claim(session, queue, globalConcurrency, room, executorId, version, names, token) : []);
    }

    private List<ClaimedWorkflow> Claim(SqlSession session, string queue, int? globalConcurrency, int room, string executorId, string version,
        IReadOnlyCollection<string> names, string token)
    {
        if (globalConcurrency is { } limit)
        {
            long running = session.Number(
                "SELECT count(*) FROM {p}workflow_status WHERE queue_name = @queue AND status = 'PENDING' AND (application_name = @app OR application_name IS NULL OR @app IS NULL)",
                ("@queue", queue), ("@app", ApplicationName));
            room = (int)Math.Min(room, Math.Max(0, limit - running));
        }
        if (room <= 0)
            return [];

        // A row without a version belongs to the latest one.
        string? latest = session.Text("""
            SELECT version_name FROM {p}application_versions WHERE application_name = @app OR application_name IS NULL OR @app IS NULL
            ORDER BY version_timestamp DESC LIMIT 1
            """, ("@app", ApplicationName));
        bool isLatest = latest is null || latest == version;
        List<(object Order, long Priority, long CreatedAt, ClaimedWorkflow Row)> claimed = session.Query(
            ClaimSql.Replace("{names}", session.Dialect.InList("name", "@names"), StringComparison.Ordinal), ReadClaim(token),
            ("@names", session.Dialect.ListValue(names)), ("@queue", queue), ("@version", version), ("@latest", isLatest ? 1L : 0L), ("@app", ApplicationName), ("@room", (long)room),
            ("@executor", executorId), ("@token", token));
        if (claimed.Count == 0)
            return [];

        // RETURNING promises no order.
        claimed.Sort((a, b) => a.Priority != b.Priority ? a.Priority.CompareTo(b.Priority)
            : a.CreatedAt != b.CreatedAt ? a.CreatedAt.CompareTo(b.CreatedAt) : Comparer<object>.Default.Compare(a.Order, b.Order));
        var rows = new List<ClaimedWorkflow>(claimed.Count);
        foreach ((_, _, _, ClaimedWorkflow row) in claimed)
        {
            string id = row.Id;
            Dictionary<int, RecordedStep> history = History(session, id);
            string? inputs = session.Text("""
                SELECT COALESCE(i.inputs, w.inputs) FROM {p}workflow_status w LEFT JOIN {p}workflow_input i ON i.workflow_uuid = w.workflow_uuid
                WHERE w.workflow_uuid = @id
                """, ("@id", id));
            long stalled = row.RecoveryAttempts > 1
                ? session.Number("SELECT stalled_recoveries FROM {d}executions WHERE workflow_uuid = @id", ("@id", id)) : 0;
            rows.Add(row with { History = history, Inputs = inputs, StalledRecoveries = stalled });
        }
        return rows;
    }

    private const string ClaimSql = """
        WITH picked AS MATERIALIZED (
            SELECT workflow_uuid FROM {p}workflow_status
            WHERE queue_name = @queue AND status = 'ENQUEUED' AND (application_version = @version OR (application_version IS NULL AND @latest = 1))
                AND (application_name = @app OR application_name IS NULL OR @app IS NULL) AND {names}
            ORDER BY priority, created_at, {order} LIMIT @room {skiplocked})
        UPDATE {p}workflow_status SET status = 'PENDING', owner_xid = @token, executor_id = @executor, application_version = @version,
            started_at_epoch_ms = {now}, updated_at = {now}, rate_limited = 0, application_name = COALESCE(application_name, @app),
            recovery_attempts = recovery_attempts + 1,
            workflow_deadline_epoch_ms = CASE WHEN workflow_timeout_ms IS NOT NULL AND workflow_deadline_epoch_ms IS NULL
                THEN {now} + workflow_timeout_ms ELSE workflow_deadline_epoch_ms END
        WHERE workflow_uuid IN (SELECT workflow_uuid FROM picked)
        RETURNING workflow_uuid, name, serialization, queue_name, recovery_attempts, workflow_deadline_epoch_ms, priority, created_at, {order}
        """;

    private static Func<DbDataReader, (object, long, long, ClaimedWorkflow)> ReadClaim(string token) => r =>
        (r.GetValue(8), r.GetInt64(6), r.GetInt64(7), new ClaimedWorkflow(
            r.GetString(0), r.TextOrNull(1) ?? "", null, r.TextOrNull(2), token, r.TextOrNull(3), r.GetInt64(4), r.NumberOrNull(5), 0,
            new Dictionary<int, RecordedStep>()));

    public static Dictionary<int, RecordedStep> History(SqlSession session, string workflowId)
    {
        List<RecordedStep> rows = session.Query("""
            SELECT function_id, function_name, output, error, child_workflow_id, serialization FROM {p}operation_outputs
            WHERE workflow_uuid = @id ORDER BY function_id
            """, r => new RecordedStep((int)r.GetInt64(0), r.GetString(1), r.TextOrNull(2), r.TextOrNull(3), r.TextOrNull(4), r.TextOrNull(5)),
            ("@id", workflowId));
        var history = new Dictionary<int, RecordedStep>(rows.Count);
        foreach (RecordedStep row in rows)
            history.Add(row.Id, row);
        return history;
    }

    /// <summary>Records how an execution ended; its successor, when it continues as new, is enqueued in the same transaction.</summary>
    public Task<RecordFate> CompleteAsync(string workflowId, string token, Outcome outcome)
    {
        var record = new OutcomeRecord(workflowId, token, outcome, this) { Nudges = true };
        Writer.Append(record);
        return record.Task;
    }

    private const string StatusColumns = """
        SELECT w.workflow_uuid, w.name, w.status, w.queue_name, w.executor_id, w.application_version, w.priority, w.recovery_attempts,
            w.created_at, w.completed_at, w.workflow_deadline_epoch_ms, COALESCE(i.inputs, w.inputs), COALESCE(o.output, w.output),
            NULLIF(COALESCE(o.error, w.error), ''),
            (SELECT s.child_workflow_id FROM {p}operation_outputs s WHERE s.workflow_uuid = w.workflow_uuid AND s.function_name = 'DBOS.continueAsNew')
        FROM {p}workflow_status w
        LEFT JOIN {p}workflow_input i ON i.workflow_uuid = w.workflow_uuid
        LEFT JOIN {p}workflow_output o ON o.workflow_uuid = w.workflow_uuid
        """;

    public static WorkflowStatus? Status(SqlSession session, string workflowId) =>
        session.First(StatusColumns + " WHERE w.workflow_uuid = @id", ReadStatus, ("@id", workflowId));

    public static List<WorkflowStatus> List(SqlSession session, WorkflowFilter filter) => session.Query(StatusColumns + """
         WHERE (@name IS NULL OR w.name = @name) AND (@status IS NULL OR w.status = @status) AND (@queue IS NULL OR w.queue_name = @queue)
            AND (@prefix IS NULL OR substr(w.workflow_uuid, 1, length(@prefix)) = @prefix)
        ORDER BY w.created_at, w.workflow_uuid LIMIT @limit
        """, ReadStatus, ("@name", filter.Name), ("@status", filter.State is { } s ? WorkflowStates.Text(s) : null),
        ("@queue", filter.QueueName), ("@prefix", filter.IdPrefix), ("@limit", (long)filter.Limit));

    private static WorkflowStatus ReadStatus(DbDataReader r) => new()
    {
        Id = r.GetString(0),
        Name = r.TextOrNull(1) ?? "",
        State = WorkflowStates.Parse(r.TextOrNull(2)),
        QueueName = r.TextOrNull(3),
        ExecutorId = r.TextOrNull(4),
        ApplicationVersion = r.TextOrNull(5),
        Priority = (int)r.GetInt64(6),
        RecoveryAttempts = r.NumberOrNull(7) ?? 0,
        CreatedAt = DateTimeOffset.FromUnixTimeMilliseconds(r.GetInt64(8)),
        CompletedAt = r.NumberOrNull(9) is { } ended ? DateTimeOffset.FromUnixTimeMilliseconds(ended) : null,
        Deadline = r.NumberOrNull(10) is { } deadline ? DateTimeOffset.FromUnixTimeMilliseconds(deadline) : null,
        Input = r.TextOrNull(11),
        Output = r.TextOrNull(12),
        Error = r.TextOrNull(13),
        ContinuedAs = r.TextOrNull(14),
    };
}

/// <summary>The last record of an execution: its outcome, under the fence.</summary>
internal sealed class OutcomeRecord(string workflowId, string token, Outcome outcome, SystemDatabase database) : WriteRecord(workflowId)
{
    private readonly TaskCompletionSource<RecordFate> _done = new();
    private readonly long _completedAt = database.NowMs;
    private RecordFate _fate;

    public Task<RecordFate> Task => _done.Task;

    // Only a successor can be refused half-way.
    public override bool NeedsSavepoint => outcome.Successor is not null;

    public override void Apply(WriterSession session)
    {
        string status = outcome.Error is null ? "SUCCESS" : "ERROR";
        if (outcome.Successor is { } next)
        {
            _fate = StepRows.Insert(session, Key, token, new StepRecord(Key, token)
            {
                StepId = outcome.SuccessorStepId,
                Name = SystemDatabase.ContinueAsNewStep,
                ChildId = next.Id,
                StartedAt = _completedAt,
                CompletedAt = _completedAt,
                ApplicationName = database.ApplicationName,
            });
            if (_fate != RecordFate.Done)
            {
                _fate = OwnLostAcknowledgement(session, status) ? RecordFate.Done : _fate;
                return;
            }
        }

        (string? dedup, int priority) = outcome.Successor is null ? default : session.First(
            "SELECT deduplication_id, priority FROM {p}workflow_status WHERE workflow_uuid = @id",
            r => (r.TextOrNull(0), (int)r.GetInt64(1)), ("@id", Key));
        int rows = session.Execute("""
            UPDATE {p}workflow_status SET status = @status, owner_xid = NULL, deduplication_id = NULL, completed_at = @at, updated_at = @at
            WHERE workflow_uuid = @id AND status = 'PENDING' AND owner_xid = @token
            """, ("@status", status), ("@at", _completedAt), ("@id", Key), ("@token", token));
        if (rows == 0)
        {
            _fate = OwnLostAcknowledgement(session, status) ? RecordFate.Done : StepRows.Fence(session, Key, token);
            return;
        }
        session.Execute("""
            INSERT INTO {p}workflow_output (workflow_uuid, output, error, retention_timestamp) VALUES (@id, @output, @error, @at)
            ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output, error = excluded.error
            """, ("@id", Key), ("@output", outcome.Output), ("@error", outcome.Error), ("@at", _completedAt));
        // After the predecessor let go of its deduplication id, so that the successor may hold the same one.
        if (outcome.Successor is { } successor)
            database.Insert(session, successor with { DeduplicationId = dedup, Priority = priority });
        _fate = RecordFate.Done;
    }

    // The commit before was not answered: the row already says what this record says.
    private bool OwnLostAcknowledgement(SqlSession session, string status) => session.Number(
        "SELECT count(*) FROM {p}workflow_status WHERE workflow_uuid = @id AND status = @status AND completed_at = @at",
        ("@id", Key), ("@status", status), ("@at", _completedAt)) == 1;

    public override void Complete()
    {
        if (Failure is { } failure)
            _done.SetException(failure);
        else
            _done.SetResult(_fate);
    }

    public override void Abandon(Exception error) => ThreadPool.UnsafeQueueUserWorkItem(
        static w => w.Done.SetException(w.Error), (Done: _done, Error: error), preferLocal: false);
}

namespace Drover.Workflows.Storage;

/// <summary>Which workflows to list; every given value narrows.</summary>
public sealed record WorkflowFilter
{
    /// <summary>Only this registered name.</summary>
    public string? Name { get; init; }
    /// <summary>Only this state.</summary>
    public WorkflowState? State { get; init; }
    /// <summary>Only this queue.</summary>
    public string? QueueName { get; init; }
    /// <summary>Only ids that begin so.</summary>
    public string? IdPrefix { get; init; }
    /// <summary>At most this many, oldest first. Default 1,000.</summary>
    public int Limit { get; init; } = 1_000;
}

internal sealed partial class SystemDatabase
{
    /// <summary>Cancels every given workflow that has not ended; returns the ids that changed.</summary>
    public Task<List<string>> CancelAsync(IReadOnlyCollection<string> ids) =>
        Writer.WriteAsync("", session => Cancel(session, ids), nudges: true);

    public static List<string> Cancel(SqlSession session, IReadOnlyCollection<string> ids)
    {
        List<string> changed = session.Query($$"""
            UPDATE {p}workflow_status SET status = 'CANCELLED', owner_xid = NULL, queue_name = NULL, deduplication_id = NULL,
                started_at_epoch_ms = NULL, completed_at = {now}, updated_at = {now}
            WHERE {{session.Dialect.InList("workflow_uuid", "@ids")}} AND status NOT IN ('SUCCESS', 'ERROR', 'CANCELLED')
            RETURNING workflow_uuid
            """, r => r.GetString(0), ("@ids", session.Dialect.ListValue(ids)));
        ForgetWaits(session, changed);
        return changed;
    }

    /// <summary>Puts workflows that have not succeeded or failed back on a queue, to go on from their recorded steps.</summary>
    public Task<List<string>> ResumeAsync(IReadOnlyCollection<string> ids, string? queue) => Writer.WriteAsync("", session =>
    {
        foreach (string id in ids)
        {
            if (session.Number("SELECT count(*) FROM {p}workflow_status WHERE workflow_uuid = @id", ("@id", id)) == 0)
                throw new DroverException(ErrorCode.NotFound, $"there is no workflow {id}");
        }
        List<string> changed = session.Query($$"""
            UPDATE {p}workflow_status SET status = 'ENQUEUED', owner_xid = NULL, queue_name = @queue, recovery_attempts = 0,
                workflow_deadline_epoch_ms = NULL, deduplication_id = NULL, started_at_epoch_ms = NULL, completed_at = NULL, updated_at = {now}
            WHERE {{session.Dialect.InList("workflow_uuid", "@ids")}} AND status NOT IN ('SUCCESS', 'ERROR')
            RETURNING workflow_uuid
            """, r => r.GetString(0), ("@queue", queue ?? InternalQueue), ("@ids", session.Dialect.ListValue(ids)));
        // Both tests of poison begin again: a person has looked at it.
        foreach (string id in changed)
            session.Execute("DELETE FROM {d}executions WHERE workflow_uuid = @id", ("@id", id));
        return changed;
    }, nudges: true);

    /// <summary>Puts a workflow whose execution was interrupted in a living process back where the next claim finds it.</summary>
    public Task<bool> GiveBackAsync(string workflowId, string token) => Writer.WriteAsync(workflowId, session => session.Execute("""
        UPDATE {p}workflow_status SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL, updated_at = {now},
            queue_name = COALESCE(queue_name, @internal)
        WHERE workflow_uuid = @id AND status = 'PENDING' AND owner_xid = @token
        """, ("@internal", InternalQueue), ("@id", workflowId), ("@token", token)) == 1, nudges: true);

    /// <summary>Gives back what the executor owns except the named workflows; the executor itself stays.</summary>
    public Task<int> GiveBackOthersAsync(string executorId, IReadOnlyCollection<string> except) => Writer.WriteAsync("", session => session.Execute($$"""
        UPDATE {p}workflow_status SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL, updated_at = {now},
            queue_name = COALESCE(queue_name, @internal)
        WHERE status = 'PENDING' AND executor_id = @executor AND NOT ({{session.Dialect.InList("workflow_uuid", "@except")}})
        """, ("@internal", InternalQueue), ("@executor", executorId), ("@except", session.Dialect.ListValue(except))), nudges: true);

    /// <summary>What the executor owns by the rows, with the owner's tokens.</summary>
    public ValueTask<List<(string Id, string Token)>> OwnedAsync(string executorId, CancellationToken cancellationToken) =>
        ReadAsync(session => session.Query("""
            SELECT workflow_uuid, owner_xid FROM {p}workflow_status WHERE status = 'PENDING' AND executor_id = @executor AND owner_xid IS NOT NULL
            """, r => (r.GetString(0), r.GetString(1)), ("@executor", executorId)), cancellationToken);

    public Task DeadLetterAsync(string workflowId, string token) => Writer.WriteAsync(workflowId, session => session.Execute("""
        UPDATE {p}workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED', owner_xid = NULL, deduplication_id = NULL,
            started_at_epoch_ms = NULL, queue_name = NULL, completed_at = {now}, updated_at = {now}
        WHERE workflow_uuid = @id AND status = 'PENDING' AND owner_xid = @token
        """, ("@id", workflowId), ("@token", token)), nudges: true);

    /// <summary>
    /// What is due, in one read: an idle process asks the database once a second and no more. Decides whether the sweeps below,
    /// the search for dead executors and the claims have anything to do.
    /// </summary>
    public ValueTask<DueWork> DueAsync(string executorId, IReadOnlyCollection<string> queues, CancellationToken cancellationToken) => ReadAsync(session => session.First($$"""
        SELECT EXISTS (SELECT 1 FROM {p}workflow_status WHERE status = 'DELAYED' AND delay_until_epoch_ms <= {now}),
            EXISTS (SELECT 1 FROM {p}workflow_status WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED')
                AND workflow_deadline_epoch_ms IS NOT NULL AND workflow_deadline_epoch_ms <= {now}),
            EXISTS (SELECT 1 FROM {d}executors WHERE id <> @id AND taken_over_by IS NULL),
            EXISTS (SELECT 1 FROM {p}workflow_status WHERE {{session.Dialect.InList("queue_name", "@queues")}} AND status = 'ENQUEUED')
        """, r => new DueWork(r.GetInt64(0) != 0, r.GetInt64(1) != 0, r.GetInt64(2) != 0, r.GetInt64(3) != 0),
        ("@id", executorId), ("@queues", session.Dialect.ListValue(queues)))!, cancellationToken);

    public Task<int> ReleaseDelayedAsync() => Writer.WriteAsync("", session => session.Execute("""
        UPDATE {p}workflow_status SET status = 'ENQUEUED', updated_at = {now}
        WHERE status = 'DELAYED' AND delay_until_epoch_ms <= {now}
        """), nudges: true);

    public Task<List<string>> CancelExpiredAsync() => Writer.WriteAsync("", session =>
    {
        List<string> ids = session.Query("""
            SELECT workflow_uuid FROM {p}workflow_status WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED')
                AND workflow_deadline_epoch_ms IS NOT NULL AND workflow_deadline_epoch_ms <= {now}
            ORDER BY workflow_deadline_epoch_ms LIMIT 1000
            """, r => r.GetString(0));
        return Cancel(session, ids);
    }, nudges: true);

    /// <summary>Of the given executions, those that no longer own their workflow, with the state they lost it to.</summary>
    public ValueTask<List<(string Id, WorkflowState State)>> LostOwnershipAsync(IReadOnlyDictionary<string, string> tokens, CancellationToken cancellationToken) =>
        ReadAsync(session =>
        {
            var found = new Dictionary<string, (string? Status, string? Owner)>(StringComparer.Ordinal);
            foreach ((string id, string? status, string? owner) in session.Query($$"""
                SELECT workflow_uuid, status, owner_xid FROM {p}workflow_status WHERE {{session.Dialect.InList("workflow_uuid", "@ids")}}
                """, r => (r.GetString(0), r.TextOrNull(1), r.TextOrNull(2)), ("@ids", session.Dialect.ListValue([.. tokens.Keys]))))
            {
                found[id] = (status, owner);
            }
            var lost = new List<(string, WorkflowState)>();
            foreach ((string id, string token) in tokens)
            {
                // A row that is gone was deleted: the execution must stop, as if cancelled.
                if (!found.TryGetValue(id, out (string? Status, string? Owner) row))
                    lost.Add((id, WorkflowState.Cancelled));
                else if (row.Status != "PENDING" || row.Owner != token)
                    lost.Add((id, WorkflowStates.Parse(row.Status)));
            }
            return lost;
        }, cancellationToken);

    public static List<StepStatus> Steps(SqlSession session, string workflowId) => session.Query("""
        SELECT function_id, function_name, output, error, COALESCE(completed_at_epoch_ms, 0) FROM {p}operation_outputs
        WHERE workflow_uuid = @id ORDER BY function_id
        """, r => new StepStatus((int)r.GetInt64(0), r.GetString(1), r.TextOrNull(2), r.TextOrNull(3), r.GetInt64(4)), ("@id", workflowId));
}

/// <summary>What a sweep would find.</summary>
internal sealed record DueWork(bool Delayed, bool Expired, bool OtherExecutors, bool Queued);

namespace Drover.Workflows.Storage;

/// <summary>The fence, and the one way in which a step's row is written.</summary>
internal static class StepRows
{
    /// <summary>The format named in every row this library writes (DBOS reference 6.1).</summary>
    public const string Format = "portable_json";

    // The fence is part of the insert: PENDING and owned by this execution, or no row is written.
    private const string InsertSql = """
        INSERT INTO {p}operation_outputs (workflow_uuid, function_id, function_name, output, error, child_workflow_id,
            started_at_epoch_ms, completed_at_epoch_ms, serialization, application_name, retention_timestamp)
        SELECT @id, @fid, @name, @output, @error, @child, @t0, @t1, 'portable_json', @app, @t1
        FROM {p}workflow_status WHERE workflow_uuid = @id AND status = 'PENDING' AND owner_xid = @token
        ON CONFLICT (workflow_uuid, function_id) DO NOTHING
        """;

    public static RecordFate Insert(SqlSession session, string workflowId, string token, StepRecord step)
    {
        int rows = session.Execute(InsertSql,
            ("@id", workflowId), ("@fid", (long)step.StepId), ("@name", step.Name), ("@output", step.Output), ("@error", step.Error),
            ("@child", step.ChildId), ("@t0", step.StartedAt), ("@t1", step.CompletedAt), ("@app", step.ApplicationName), ("@token", token));
        if (rows == 1)
            return RecordFate.Done;
        RecordFate fence = Fence(session, workflowId, token);
        if (fence != RecordFate.Done)
            return fence;

        // The same completion time is our own row from a commit whose answer was lost.
        long stored = session.Number("""
            SELECT completed_at_epoch_ms FROM {p}operation_outputs
            WHERE workflow_uuid = @id AND function_id = @fid AND function_name = @name
            """, ("@id", workflowId), ("@fid", (long)step.StepId), ("@name", step.Name));
        return stored == step.CompletedAt ? RecordFate.Done : RecordFate.Conflict;
    }

    /// <summary>Says whether this execution still owns the workflow: <see cref="RecordFate.Done"/> when it does.</summary>
    public static RecordFate Fence(SqlSession session, string workflowId, string token)
    {
        (string? status, string? owner) = session.First(
            "SELECT status, owner_xid FROM {p}workflow_status WHERE workflow_uuid = @id",
            r => (r.TextOrNull(0), r.TextOrNull(1)), ("@id", workflowId));
        if (status == "PENDING" && owner == token)
            return RecordFate.Done;
        return status == "CANCELLED" ? RecordFate.Cancelled : RecordFate.Fenced;
    }

    /// <summary>Throws the error that a refused record means for the body.</summary>
    public static void ThrowUnlessDone(RecordFate fate, string workflowId, string what)
    {
        switch (fate)
        {
            case RecordFate.Done:
                return;
            case RecordFate.Cancelled:
                throw new DroverException(ErrorCode.Cancelled, $"workflow {workflowId} was cancelled");
            case RecordFate.Fenced:
                throw new DroverException(ErrorCode.Fenced, $"workflow {workflowId} is owned by another execution; {what} was refused");
            default:
                throw new DroverException(ErrorCode.NonDeterminism,
                    $"workflow {workflowId} already recorded another result at {what}: the body is not deterministic");
        }
    }
}

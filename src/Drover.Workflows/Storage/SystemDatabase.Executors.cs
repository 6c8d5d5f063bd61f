namespace Drover.Workflows.Storage;

/// <summary>A process that runs workflows, as its row shows it.</summary>
/// <param name="Id">Its id, new at every start.</param>
/// <param name="BootId">The machine's boot when it started.</param>
/// <param name="PidNamespace">The PID namespace its pid counts in.</param>
/// <param name="Pid">Its process id.</param>
/// <param name="StartTicks">The process's start time in clock ticks since boot: with the pid, its identity.</param>
/// <param name="Application">The application it serves.</param>
/// <param name="Version">The application version it runs.</param>
public sealed record ExecutorInfo(string Id, string BootId, string PidNamespace, long Pid, long StartTicks, string? Application, string Version);

internal sealed partial class SystemDatabase
{
    public Task RegisterExecutorAsync(ExecutorInfo executor, string machineId, string token, long leaseMs) => Writer.WriteAsync("", session =>
    {
        session.Execute("""
            INSERT INTO {d}executors (id, machine_id, boot_id, pid_namespace, pid, start_ticks, application, version, started_at, heartbeat_at, lease_until, token)
            VALUES (@id, @machine, @boot, @ns, @pid, @ticks, @app, @version, {now}, {now}, {now} + @lease, @token)
            """, ("@id", executor.Id), ("@machine", machineId), ("@boot", executor.BootId), ("@ns", executor.PidNamespace), ("@pid", executor.Pid),
            ("@ticks", executor.StartTicks), ("@app", executor.Application), ("@version", executor.Version), ("@lease", leaseMs), ("@token", token));
        // A new version becomes the latest; relaunching an old one does not retime it (DBOS reference 3.9).
        session.Execute("""
            INSERT INTO {p}application_versions (version_id, version_name, version_timestamp, created_at, application_name)
            VALUES (@id, @version, {now}, {now}, @app) ON CONFLICT (version_name) DO NOTHING
            """, ("@id", Guid.NewGuid().ToString()), ("@version", executor.Version), ("@app", executor.Application));
        return true;
    });

    /// <summary>Extends the lease; false when somebody took it over.</summary>
    public Task<bool> HeartbeatAsync(string executorId, string token, long leaseMs) => Writer.WriteAsync("", session => session.Execute("""
        UPDATE {d}executors SET heartbeat_at = {now}, lease_until = {now} + @lease
        WHERE id = @id AND token = @token AND taken_over_by IS NULL
        """, ("@lease", leaseMs), ("@id", executorId), ("@token", token)) == 1);

    /// <summary>False when the executor was taken over: nothing may begin under its name any more, because nobody would recover it.</summary>
    private static bool IsLive(SqlSession session, string executorId) => session.Number(
        "SELECT count(*) FROM {d}executors WHERE id = @id AND taken_over_by IS NULL", ("@id", executorId)) == 1;

    public Task RemoveExecutorAsync(string executorId) => Writer.WriteAsync("", session =>
        session.Execute("DELETE FROM {d}executors WHERE id = @id", ("@id", executorId)));

    /// <summary>Every executor but one; on a scoped application only its own.</summary>
    public ValueTask<List<ExecutorInfo>> OtherExecutorsAsync(string executorId, CancellationToken cancellationToken) => ReadAsync(session => session.Query("""
        SELECT id, boot_id, pid_namespace, pid, start_ticks, application, version FROM {d}executors
        WHERE id <> @id AND taken_over_by IS NULL AND (@app IS NULL OR application = @app)
        """, r => new ExecutorInfo(r.GetString(0), r.GetString(1), r.GetString(2), r.GetInt64(3), r.GetInt64(4), r.TextOrNull(5), r.GetString(6)),
        ("@id", executorId), ("@app", ApplicationName)), cancellationToken);

    /// <summary>
    /// Takes the work of an executor: one conditional change that re-enqueues what it ran and lets its row go. New owner
    /// tokens at the next claim refuse every write of the former owner. Counts recoveries without progress.
    /// </summary>
    public Task<int> TakeOverAsync(string executorId, string byExecutorId) => Writer.WriteAsync("", session =>
    {
        List<string> ids = session.Query("""
            SELECT workflow_uuid FROM {p}workflow_status WHERE status = 'PENDING' AND executor_id = @executor
            """, r => r.GetString(0), ("@executor", executorId));
        // An executor that gives its own work back stopped in order: that is no sign of poison.
        foreach (string id in executorId == byExecutorId ? [] : ids)
            CountRecovery(session, id);
        session.Execute("""
            UPDATE {p}workflow_status SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL, updated_at = {now},
                queue_name = COALESCE(queue_name, @internal)
            WHERE status = 'PENDING' AND executor_id = @executor
            """, ("@internal", InternalQueue), ("@executor", executorId));
        session.Execute("UPDATE {d}executors SET taken_over_by = @by WHERE id = @id", ("@by", byExecutorId), ("@id", executorId));
        return ids.Count;
    }, nudges: true);

    private static void CountRecovery(SqlSession session, string workflowId)
    {
        // Whoever waits for a time or a message makes no progress by nature; a crash is not its fault.
        if (session.Number("SELECT count(*) FROM {d}waits WHERE workflow_uuid = @id", ("@id", workflowId)) > 0)
            return;
        long rows = session.Number("SELECT count(*) FROM {p}operation_outputs WHERE workflow_uuid = @id", ("@id", workflowId));
        session.Execute("""
            INSERT INTO {d}executions AS e (workflow_uuid, recorded_rows, stalled_recoveries, recovered_at) VALUES (@id, @rows, 1, {now})
            ON CONFLICT (workflow_uuid) DO UPDATE SET recovered_at = excluded.recovered_at, recorded_rows = excluded.recorded_rows,
                stalled_recoveries = CASE WHEN excluded.recorded_rows > e.recorded_rows THEN 1 ELSE e.stalled_recoveries + 1 END
            """, ("@id", workflowId), ("@rows", rows));
    }
}

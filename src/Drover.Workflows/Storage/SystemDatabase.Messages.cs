namespace Drover.Workflows.Storage;

/// <summary>A received message, or none.</summary>
internal sealed record ReceivedMessage(RecordFate Fate, bool Found, string? Message, string? Format, long? DeadlineMs);

internal sealed partial class SystemDatabase
{
    /// <summary>The stored form of "no topic" (DBOS reference part 2, 0.4).</summary>
    public const string NullTopic = "__null__topic__";

    /// <summary>Stores a message for a workflow; the same message id is stored once.</summary>
    public static void Send(SqlSession session, string destination, string? topic, string message, string messageId)
    {
        if (session.Number("SELECT count(*) FROM {p}workflow_status WHERE workflow_uuid = @id", ("@id", destination)) == 0)
            throw new DroverException(ErrorCode.NotFound, $"there is no workflow {destination} to send to");
        session.Execute("""
            INSERT INTO {p}notifications (message_uuid, destination_uuid, topic, message, created_at_epoch_ms, serialization, consumed)
            VALUES (@message_id, @destination, @topic, @message, @at, 'portable_json', 0)
            ON CONFLICT (message_uuid) DO NOTHING
            """, ("@message_id", messageId), ("@destination", destination), ("@topic", topic ?? NullTopic), ("@message", message),
            ("@at", Math.Max(session.NowMs, 1 + LastWaiting(session, destination, topic))));
    }

    // The time is the order of delivery: within one millisecond, and after a clock that went back, it must still grow.
    private static long LastWaiting(SqlSession session, string destination, string? topic) => session.Number(
        "SELECT MAX(created_at_epoch_ms) FROM {p}notifications WHERE destination_uuid = @destination AND topic = @topic AND consumed = 0",
        ("@destination", destination), ("@topic", topic ?? NullTopic));

    /// <summary>A send from a body: the message and the step's row commit together, under the fence.</summary>
    public Task<RecordFate> SendStepAsync(string workflowId, string token, StepRecord step, string destination, string? topic, string message, string messageId) =>
        Writer.WriteAsync(workflowId, session =>
        {
            RecordFate fence = StepRows.Fence(session, workflowId, token);
            if (fence != RecordFate.Done)
                return fence;
            Send(session, destination, topic, message, messageId);
            return StepRows.Insert(session, workflowId, token, step);
        }, nudges: true);

    /// <summary>
    /// Consumes the oldest message of a topic and records it as the receive step, in one commit. Without a message: on the
    /// first look records the timer and the wait; when <paramref name="giveUp"/>, records "nothing came".
    /// </summary>
    public Task<ReceivedMessage> ReceiveAsync(string workflowId, string token, int stepId, string? topic, long? deadlineMs, bool timerRecorded, bool giveUp) =>
        Writer.WriteAsync(workflowId, session =>
        {
            RecordFate fence = StepRows.Fence(session, workflowId, token);
            if (fence != RecordFate.Done)
                return new ReceivedMessage(fence, false, null, null, null);
            long now = NowMs;
            (string? id, string? message, string? format) = session.First("""
                SELECT message_uuid, message, serialization FROM {p}notifications
                WHERE destination_uuid = @id AND topic = @topic AND consumed = 0 ORDER BY created_at_epoch_ms, message_uuid LIMIT 1
                """, r => (r.GetString(0), r.GetString(1), r.TextOrNull(2)), ("@id", workflowId), ("@topic", topic ?? NullTopic));
            if (id is null && !giveUp)
            {
                if (deadlineMs is { } until && !timerRecorded)
                    _ = InsertTimer(session, workflowId, token, stepId + 1, until, now);
                Wait(session, workflowId, "receive", topic, deadlineMs, now);
                return new ReceivedMessage(RecordFate.Done, false, null, null, deadlineMs);
            }

            if (id is not null)
            {
                session.Execute("UPDATE {p}notifications SET consumed = 1, consumed_by_function_id = @fid WHERE message_uuid = @mid",
                    ("@fid", (long)stepId), ("@mid", id));
            }
            RecordFate fate = StepRows.Insert(session, workflowId, token, new StepRecord(workflowId, token)
            {
                StepId = stepId,
                Name = "DBOS.recv",
                Output = message,
                StartedAt = now,
                CompletedAt = now,
                ApplicationName = ApplicationName,
            });
            // A refused step must not leave the message consumed: throwing undoes the record.
            StepRows.ThrowUnlessDone(fate, workflowId, $"step {stepId} (DBOS.recv)");
            ForgetWaits(session, [workflowId]);
            return new ReceivedMessage(fate, true, message, format, null);
        });

    /// <summary>Records a durable timer and the wait on it. The first deadline recorded wins.</summary>
    public Task<RecordFate> StartTimerAsync(string workflowId, string token, int stepId, long untilMs) => Writer.WriteAsync(workflowId, session =>
    {
        RecordFate fate = InsertTimer(session, workflowId, token, stepId, untilMs, NowMs);
        if (fate == RecordFate.Done)
            Wait(session, workflowId, "sleep", null, untilMs, NowMs);
        return fate;
    });

    /// <summary>Forgets the wait, when this execution still owns the workflow.</summary>
    public Task EndWaitAsync(string workflowId, string token) => Writer.WriteAsync(workflowId, session =>
    {
        if (StepRows.Fence(session, workflowId, token) == RecordFate.Done)
            ForgetWaits(session, [workflowId]);
        return true;
    });

    // The wake-up time is the step's output: integer milliseconds, portable JSON (DBOS reference 3.8).
    private RecordFate InsertTimer(SqlSession session, string workflowId, string token, int stepId, long untilMs, long now) =>
        StepRows.Insert(session, workflowId, token, new StepRecord(workflowId, token)
        {
            StepId = stepId,
            Name = "DBOS.sleep",
            Output = untilMs.ToString(System.Globalization.CultureInfo.InvariantCulture),
            StartedAt = now,
            CompletedAt = untilMs,
            ApplicationName = ApplicationName,
        });

    private static void Wait(SqlSession session, string workflowId, string kind, string? key, long? until, long now) => session.Execute("""
        INSERT INTO {d}waits (workflow_uuid, kind, key, until, since) VALUES (@id, @kind, @key, @until, @since)
        ON CONFLICT (workflow_uuid) DO UPDATE SET kind = excluded.kind, key = excluded.key, until = excluded.until, since = excluded.since
        """, ("@id", workflowId), ("@kind", kind), ("@key", key), ("@until", until), ("@since", now));

    private static void ForgetWaits(SqlSession session, IReadOnlyCollection<string> ids)
    {
        foreach (string id in ids)
            session.Execute("DELETE FROM {d}waits WHERE workflow_uuid = @id", ("@id", id));
    }
}

using System.Globalization;
using Drover.Workflows.Diagnostics;
using Drover.Workflows.Serialization;
using Drover.Workflows.Storage;

namespace Drover.Workflows.Execution;

/// <summary>Durable waits and messages: timer, send, receive.</summary>
internal static class WaitRunner
{
    // Wake-ups cover every change; this only bounds the damage of one that was missed.
    private static readonly TimeSpan SafetyNet = TimeSpan.FromSeconds(10);

    public static Task SleepAsync(WorkflowExecutor execution, Checkpoint<bool> checkpoint, TimeSpan duration, RecordedStep? recorded) =>
        GuardAsync(execution, async () =>
        {
            long until;
            if (recorded is not null)
            {
                until = long.Parse(recorded.Output!, CultureInfo.InvariantCulture);
            }
            else
            {
                until = execution.Database.NowMs + Milliseconds(duration);
                RecordFate fate = await execution.Database.StartTimerAsync(execution.Id, execution.Token, checkpoint.Id, until).ConfigureAwait(false);
                if (fate != RecordFate.Done)
                {
                    execution.Refused(checkpoint, fate);
                    return;
                }
            }
            long left = until - execution.Database.NowMs;
            if (left > 0)
            {
                if (!await DelayAsync(execution, TimeSpan.FromMilliseconds(left)).ConfigureAwait(false))
                    return;
                await execution.Database.EndWaitAsync(execution.Id, execution.Token).ConfigureAwait(false);
            }
            if (recorded is not null && left <= 0)
                execution.DeliverRecordedLate(checkpoint);
            else
                execution.DeliverLive(checkpoint);
        });

    public static Task SendAsync(WorkflowExecutor execution, Checkpoint<bool> checkpoint, string destination, string? topic, string message) =>
        GuardAsync(execution, async () =>
        {
            StepRecord Step(string? error) => new(execution.Id, execution.Token)
            {
                StepId = checkpoint.Id,
                Name = checkpoint.Name,
                Error = error,
                StartedAt = execution.Database.NowMs,
                CompletedAt = execution.Database.NowMs,
                ApplicationName = execution.Database.ApplicationName,
            };
            RecordFate fate;
            try
            {
                // The id is derived from the step, so that a repeat after a lost answer stores the message once.
                fate = await execution.Database.SendStepAsync(execution.Id, execution.Token, Step(null), destination, topic, message,
                    $"{execution.Id}:{checkpoint.Id}::{destination}").ConfigureAwait(false);
            }
            catch (DroverException e) when (e.Code == ErrorCode.NotFound)
            {
                string error = PortableJson.WriteError(e);
                StepRecord record = Step(error);
                execution.Database.Writer.Append(record);
                fate = await record.Task.ConfigureAwait(false);
                if (fate == RecordFate.Done)
                    checkpoint.Refuse(StepRunner.Failure(checkpoint.Name, error, e));
            }
            if (fate != RecordFate.Done)
            {
                execution.Refused(checkpoint, fate);
                return;
            }
            execution.Engine.Wakeups.Wake(Wakeups.Message(destination, topic));
            execution.DeliverLive(checkpoint);
        });

    public static Task ReceiveAsync<T>(WorkflowExecutor execution, Checkpoint<T?> checkpoint, string? topic, TimeSpan timeout, RecordedStep? timer) =>
        GuardAsync(execution, async () =>
        {
            SystemDatabase database = execution.Database;
            bool timerRecorded = timer is not null;
            long? deadline = timer is not null ? long.Parse(timer.Output!, CultureInfo.InvariantCulture)
                : timeout > TimeSpan.Zero ? database.NowMs + Milliseconds(timeout) : null;
            using Wakeups.Registration registration = execution.Engine.Wakeups.Register(Wakeups.Message(execution.Id, topic));
            while (true)
            {
                // Taken before looking: a message between the look and the wait completes it.
                Task signal = registration.Next;
                bool giveUp = deadline is null || database.NowMs >= deadline;
                ReceivedMessage received;
                try
                {
                    received = await database.ReceiveAsync(execution.Id, execution.Token, checkpoint.Id, topic, deadline, timerRecorded, giveUp)
                        .ConfigureAwait(false);
                }
                catch (DroverException e) when (e.Code is ErrorCode.NonDeterminism)
                {
                    execution.Refused(checkpoint, RecordFate.Conflict);
                    return;
                }
                if (received.Fate != RecordFate.Done)
                {
                    execution.Refused(checkpoint, received.Fate);
                    return;
                }
                if (received.Found)
                {
                    checkpoint.SetRecorded(() => execution.Json.Read<T>(received.Message)!);
                    execution.DeliverLive(checkpoint);
                    return;
                }
                timerRecorded = true;
                TimeSpan left = TimeSpan.FromMilliseconds(Math.Max(1, deadline!.Value - database.NowMs));
                if (!await WaitAsync(execution, signal, left < SafetyNet ? left : SafetyNet).ConfigureAwait(false))
                    return;
            }
        });

    private static long Milliseconds(TimeSpan span) => (long)Math.Ceiling(Math.Min(span.TotalMilliseconds, 100L * 365 * 86_400_000));

    private static async Task<bool> DelayAsync(WorkflowExecutor execution, TimeSpan delay)
    {
        // Timers of the platform end at about 49 days: a longer sleep is waited for in parts.
        TimeSpan longest = TimeSpan.FromDays(20);
        try
        {
            for (TimeSpan left = delay; left > TimeSpan.Zero; left -= longest)
                await Task.Delay(left < longest ? left : longest, execution.Engine.Time, execution.CancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (OperationCanceledException)
        {
            return false;
        }
    }

    private static async Task<bool> WaitAsync(WorkflowExecutor execution, Task signal, TimeSpan limit)
    {
        try
        {
            await signal.WaitAsync(limit, execution.Engine.Time, execution.CancellationToken).ConfigureAwait(false);
            return true;
        }
        catch (TimeoutException)
        {
            return true;
        }
        catch (OperationCanceledException)
        {
            return false;
        }
    }

    // A wait is not a step body: it holds no slot and may be abandoned at any time.
    private static async Task GuardAsync(WorkflowExecutor execution, Func<Task> work)
    {
        try
        {
            await work().ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Log.OutcomeLost(execution.Engine.Logger, e, execution.Id);
            execution.End(ExecutionEnd.Interrupted);
        }
    }
}

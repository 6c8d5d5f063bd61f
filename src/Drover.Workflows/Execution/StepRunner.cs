using Drover.Workflows.Diagnostics;
using Drover.Workflows.Serialization;
using Drover.Workflows.Storage;

namespace Drover.Workflows.Execution;

/// <summary>Runs one step that has no recorded result: body with retries, record, hand over.</summary>
internal static class StepRunner
{
    /// <summary>Starts the step's body on the calling thread, outside the workflow's context.</summary>
    public static void Start<T>(WorkflowExecutor execution, Checkpoint<T> checkpoint, Func<StepContext, Task<T>> body, StepOptions options)
    {
        SynchronizationContext? turn = SynchronizationContext.Current;
        SynchronizationContext.SetSynchronizationContext(null);
        try
        {
            _ = RunAsync(execution, checkpoint, body, options);
        }
        finally
        {
            SynchronizationContext.SetSynchronizationContext(turn);
        }
    }

    private static async Task RunAsync<T>(WorkflowExecutor execution, Checkpoint<T> checkpoint, Func<StepContext, Task<T>> body, StepOptions options)
    {
        execution.StepBegins();
        try
        {
            long started = execution.Database.NowMs;
            (bool finished, T? value, Exception? error) = await AttemptAsync(execution, checkpoint, body, options).ConfigureAwait(false);
            if (!finished)
                return;
            string? output = null;
            if (error is null)
            {
                try
                {
                    output = execution.Json.Write(value);
                }
                catch (Exception e)
                {
                    // Whatever it is (a type of no context, NaN, a getter that throws), it would be the same at every attempt.
                    error = e;
                }
            }
            CrashPoints.Reach("executor.5");
            await RecordAsync(execution, checkpoint, started, output, value, error).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            // The database refused the record: nothing is known to be stored, so nothing may go on from it.
            Log.OutcomeLost(execution.Engine.Logger, e, execution.Id);
            execution.End(ExecutionEnd.Interrupted);
        }
        finally
        {
            execution.StepEnded();
        }
    }

    private static async Task<(bool Finished, T? Value, Exception? Error)> AttemptAsync<T>(
        WorkflowExecutor execution, Checkpoint checkpoint, Func<StepContext, Task<T>> body, StepOptions options)
    {
        TimeSpan pause = options.Backoff;
        for (int attempt = 1; ; attempt++)
        {
            CancellationToken cancellationToken = execution.CancellationToken;
            try
            {
                CrashPoints.Reach("executor.4");
                var context = new StepContext(execution.Id, checkpoint.Id, attempt, execution.Engine.Services, cancellationToken);
                return (true, await body(context).ConfigureAwait(false), null);
            }
            catch (Exception) when (cancellationToken.IsCancellationRequested)
            {
                // Cancelled, fenced or stopping: an interrupted step has no result, whatever it threw.
                return (false, default, null);
            }
            catch (Exception e)
            {
                if (attempt >= options.Attempts)
                    return (true, default, e);
                try
                {
                    if (options.RetryIf?.Invoke(e) == false)
                        return (true, default, e);
                }
                catch (Exception filter)
                {
                    return (true, default, filter);
                }
                Log.StepRetried(execution.Engine.Logger, checkpoint.Name, execution.Id, attempt, e.Message);
            }
            try
            {
                pause = pause < options.MaxBackoff ? pause : options.MaxBackoff;
                await Task.Delay(pause, execution.Engine.Time, cancellationToken).ConfigureAwait(false);
            }
            catch (OperationCanceledException)
            {
                return (false, default, null);
            }
            pause *= options.BackoffFactor;
        }
    }

    /// <summary>Records a result or an error under the fence, then hands it to the body.</summary>
    public static async Task RecordAsync<T>(
        WorkflowExecutor execution, Checkpoint<T> checkpoint, long started, string? output, T? value, Exception? error)
    {
        string? errorText = error is null ? null : PortableJson.WriteError(error);
        var record = new StepRecord(execution.Id, execution.Token)
        {
            StepId = checkpoint.Id,
            Name = checkpoint.Name,
            Output = output,
            Error = errorText,
            StartedAt = started,
            CompletedAt = execution.Database.NowMs,
            ApplicationName = execution.Database.ApplicationName,
        };
        execution.Database.Writer.Append(record);
        RecordFate fate = await record.Task.ConfigureAwait(false);
        if (fate != RecordFate.Done)
        {
            execution.Refused(checkpoint, fate);
            return;
        }
        if (error is null)
            checkpoint.Set(value!);
        else
            checkpoint.Refuse(Failure(checkpoint.Name, errorText!, error));
        execution.DeliverLive(checkpoint);
    }

    /// <summary>The exception a body sees for a failed step: the same live and on replay.</summary>
    public static StepFailedException Failure(string step, string errorText, Exception? inner)
    {
        ErrorPayload error = PortableJson.ReadError(errorText);
        return new StepFailedException(step, error.Name, error.Message, inner);
    }
}

using Drover.Workflows.Diagnostics;
using Drover.Workflows.Serialization;
using Drover.Workflows.Storage;

namespace Drover.Workflows.Execution;

/// <summary>Runs a transactional step: the body's writes and the step's row are one commit, under the fence.</summary>
internal static class TransactionRunner
{
    public static void Start<T>(WorkflowExecutor execution, Checkpoint<T> checkpoint, Func<WorkflowTransaction, T> work)
    {
        SynchronizationContext? turn = SynchronizationContext.Current;
        SynchronizationContext.SetSynchronizationContext(null);
        try
        {
            _ = RunAsync(execution, checkpoint, work);
        }
        finally
        {
            SynchronizationContext.SetSynchronizationContext(turn);
        }
    }

    private static async Task RunAsync<T>(WorkflowExecutor execution, Checkpoint<T> checkpoint, Func<WorkflowTransaction, T> work)
    {
        SystemDatabase database = execution.Database;
        execution.StepBegins();
        try
        {
            long started = database.NowMs;
            try
            {
                (RecordFate fate, T? value) = await database.Writer.TransactAsync(execution.Id, session =>
                    Commit(execution, checkpoint, session, work, started)).ConfigureAwait(false);
                if (fate != RecordFate.Done)
                {
                    execution.Refused(checkpoint, fate);
                    return;
                }
                execution.Engine.Wakeups.WakeAll();
                execution.Engine.Dispatcher.Wake();
                checkpoint.Set(value!);
            }
            catch (DroverException e) when (e.Code is ErrorCode.Unavailable)
            {
                execution.End(ExecutionEnd.Interrupted);
                return;
            }
            catch (Exception e)
            {
                await RecordErrorAsync(execution, checkpoint, started, e).ConfigureAwait(false);
                return;
            }
            execution.DeliverLive(checkpoint);
        }
        catch (Exception e)
        {
            Log.OutcomeLost(execution.Engine.Logger, e, execution.Id);
            execution.End(ExecutionEnd.Interrupted);
        }
        finally
        {
            execution.StepEnded();
        }
    }

    // May run again after an unknown commit: its own row at this place is then the proof, and the work is not repeated.
    private static (RecordFate, T?) Commit<T>(
        WorkflowExecutor execution, Checkpoint<T> checkpoint, WriterSession session, Func<WorkflowTransaction, T> work, long started)
    {
        RecordFate fence = StepRows.Fence(session, execution.Id, execution.Token);
        if (fence != RecordFate.Done)
            return (fence, default);
        string? earlier = session.Text(
            "SELECT output FROM {p}operation_outputs WHERE workflow_uuid = @id AND function_id = @fid AND started_at_epoch_ms = @t0 AND function_name = @name",
            ("@id", execution.Id), ("@fid", (long)checkpoint.Id), ("@t0", started), ("@name", checkpoint.Name));
        if (earlier is not null)
            return (RecordFate.Done, execution.Json.Read<T>(earlier));

        var transaction = new WorkflowTransaction(session, execution.Database, execution.Json, execution.Engine.ApplicationVersion,
            $"{execution.Id}:{checkpoint.Id}", execution.Engine.Services, execution.Id);
        T value = work(transaction);
        RecordFate fate = StepRows.Insert(session, execution.Id, execution.Token, new StepRecord(execution.Id, execution.Token)
        {
            StepId = checkpoint.Id,
            Name = checkpoint.Name,
            Output = execution.Json.Write(value),
            StartedAt = started,
            CompletedAt = execution.Database.NowMs,
            ApplicationName = execution.Database.ApplicationName,
        });
        StepRows.ThrowUnlessDone(fate, execution.Id, checkpoint.Label);
        CrashPoints.Reach("transact.1");
        return (fate, value);
    }

    private static async Task RecordErrorAsync<T>(WorkflowExecutor execution, Checkpoint<T> checkpoint, long started, Exception error)
    {
        string text = PortableJson.WriteError(error);
        var record = new StepRecord(execution.Id, execution.Token)
        {
            StepId = checkpoint.Id,
            Name = checkpoint.Name,
            Error = text,
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
        checkpoint.Refuse(StepRunner.Failure(checkpoint.Name, text, error));
        execution.DeliverLive(checkpoint);
    }
}

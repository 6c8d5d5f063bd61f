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
            catch (UndoneException e)
            {
                execution.Refused(checkpoint, e.Fate);
                return;
            }
            catch (BodyFailedException e)
            {
                await StepRunner.RecordAsync(execution, checkpoint, started, null, default, e.InnerException!).ConfigureAwait(false);
                return;
            }
            catch (DroverException e) when (e.Code is ErrorCode.Unavailable)
            {
                execution.End(ExecutionEnd.Interrupted);
                return;
            }
            execution.DeliverLive(checkpoint);
        }
        catch (Exception e)
        {
            // The limit, or the database: it says nothing about the work, so it is no result of the step. The row stays pending.
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
        (T value, string output) = RunBody(execution, session, transaction, work);
        RecordFate fate = StepRows.Insert(session, execution.Id, execution.Token, new StepRecord(execution.Id, execution.Token)
        {
            StepId = checkpoint.Id,
            Name = checkpoint.Name,
            Output = output,
            StartedAt = started,
            CompletedAt = execution.Database.NowMs,
            ApplicationName = execution.Database.ApplicationName,
        });
        if (fate != RecordFate.Done)
            throw new UndoneException(fate);
        CrashPoints.Reach("transact.1");
        return (fate, value);
    }

    private static (T Value, string Output) RunBody<T>(
        WorkflowExecutor execution, WriterSession session, WorkflowTransaction transaction, Func<WorkflowTransaction, T> work)
    {
        T value;
        string output;
        try
        {
            value = work(transaction);
            output = execution.Json.Write(value);
        }
        catch (Exception e) when (!IsTroubleOfTheDatabase(session.Dialect, e))
        {
            throw new BodyFailedException(e);
        }
        // The body caught an error at which the database ended the transaction: the step's row would be committed without its writes.
        return session.InTransaction ? (value, output) : throw new DroverException(ErrorCode.Database,
            $"the transaction of workflow {execution.Id} ended before its step: let errors of the database pass through the body");
    }

    // Also when the body wrapped it: an error of the database stays one, whatever it is called.
    private static bool IsTroubleOfTheDatabase(SqlDialect dialect, Exception error)
    {
        for (Exception? e = error; e is not null; e = e.InnerException)
        {
            if (dialect.Classify(e) is SqlErrorKind.Transient or SqlErrorKind.DiskFull or SqlErrorKind.Broken)
                return true;
        }
        return false;
    }

    // What the user's own code threw: the only error that is recorded.
    private sealed class BodyFailedException(Exception error) : Exception(error.Message, error);

    // The step's row was refused after the body ran: thrown so that the body's writes are undone.
    private sealed class UndoneException(RecordFate fate) : Exception("the step's row was refused")
    {
        public RecordFate Fate => fate;
    }
}

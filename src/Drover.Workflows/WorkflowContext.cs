using Drover.Workflows.Execution;
using Drover.Workflows.Serialization;
using Drover.Workflows.Storage;

namespace Drover.Workflows;

/// <summary>
/// What a body may do. Each call is a checkpoint: its number is taken when it is called, its result is recorded before the body
/// sees it, and a replay hands the recorded result over instead of doing it again.
/// <para>Parallel calls are legal when they are started in a fixed order; at most one branch may go on before all are awaited.
/// <see cref="Task.WhenAny(Task[])"/> over checkpoints is not deterministic and forbidden.</para>
/// <para>Only what your own code threw, or a result that cannot be written as JSON, is recorded as a checkpoint's error and thrown into the
/// body, live and at every replay. Everything else ends this attempt without a result:</para>
/// <list type="bullet">
/// <item>a full or busy database: nothing is acknowledged, the call waits until the database can be written again;</item>
/// <item>another error of the database, or a transaction over its limit: nothing is recorded, the workflow stays pending and is given back
/// to its queue after a pause that grows from 1 s to 60 s; each new attempt counts towards
/// <see cref="WorkflowLimits.MaxRecoveryAttempts"/>;</item>
/// <item>the host stops, or the process dies: the next start goes on from what was recorded;</item>
/// <item>the workflow was cancelled, or somebody else owns it now: the body sees a <see cref="DroverException"/>
/// (<see cref="ErrorCode.Cancelled"/>, <see cref="ErrorCode.Fenced"/>) and can record nothing more.</item>
/// </list>
/// </summary>
public sealed class WorkflowContext
{
    private readonly WorkflowExecutor _execution;

    internal WorkflowContext(WorkflowExecutor execution) => _execution = execution;

    /// <summary>The workflow's id.</summary>
    public string WorkflowId => _execution.Id;

    /// <summary>
    /// Runs a step: at least once, and never again once its result is recorded. Must not keep resources for the body.
    /// <para>It runs again when its attempt ended before its result was recorded: after a crash or a stop, and when the database refused the
    /// record. An exception after the last retry is the recorded result, and so is the error of a result that cannot be written as JSON (a type of
    /// no registered context, NaN) or of a retry filter that throws; these two are not retried. What a step throws after its token was
    /// cancelled is never recorded.</para>
    /// </summary>
    /// <param name="name">Part of the recorded protocol; checked on replay.</param>
    /// <param name="body">The step. Runs outside the body's context.</param>
    /// <param name="options">Retries.</param>
    /// <exception cref="StepFailedException">The step failed; recorded, so that a replay throws it too.</exception>
    public Task<T> StepAsync<T>(string name, Func<StepContext, Task<T>> body, StepOptions? options = null)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(name);
        ArgumentNullException.ThrowIfNull(body);
        var checkpoint = new Checkpoint<T>() { Name = name };
        if (_execution.Begin(checkpoint) is { } recorded)
            Replay(checkpoint, recorded);
        else
            StepRunner.Start(_execution, checkpoint, body, options ?? StepOptions.Default);
        return checkpoint.Task;
    }

    /// <inheritdoc cref="StepAsync{T}"/>
    public Task StepAsync(string name, Func<StepContext, Task> body, StepOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(body);
        return StepAsync<bool?>(name, async step =>
        {
            await body(step).ConfigureAwait(false);
            return null;
        }, options);
    }

    /// <summary>
    /// A step that writes only through the system database: its rows and its record commit together, so it takes effect exactly
    /// once. Runs alone between batches, at most 5 s.
    /// <para>When your code throws (a violated constraint is your code's error too), or the result cannot be written as JSON, its writes
    /// are undone and the error is recorded. When it takes longer than 5 s, or the database fails (busy, full, I/O, read-only, damaged; also
    /// when your code wraps that error in one of its own), its writes are undone, nothing is recorded, and it runs again: so the code may
    /// run several times although it takes effect once. It must let errors of the database pass.</para>
    /// </summary>
    /// <param name="name">Part of the recorded protocol; checked on replay.</param>
    /// <param name="work">Writes through its handle only; must not wait for anything else, because every other writer waits for it.</param>
    /// <exception cref="StepFailedException">Your code failed; recorded, so that a replay throws it too.</exception>
    public Task<T> TransactAsync<T>(string name, Func<WorkflowTransaction, T> work)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(name);
        ArgumentNullException.ThrowIfNull(work);
        var checkpoint = new Checkpoint<T>() { Name = name };
        if (_execution.Begin(checkpoint) is { } recorded)
            Replay(checkpoint, recorded);
        else
            TransactionRunner.Start(_execution, checkpoint, work);
        return checkpoint.Task;
    }

    /// <summary>Waits durably: the wake-up time is recorded and survives any number of crashes.</summary>
    public Task SleepAsync(TimeSpan duration)
    {
        var checkpoint = new Checkpoint<bool>() { Name = "DBOS.sleep" };
        RecordedStep? recorded = _execution.Begin(checkpoint);
        Outside(() => WaitRunner.SleepAsync(_execution, checkpoint, duration, recorded));
        return checkpoint.Task;
    }

    /// <summary>Sends a message to a workflow, exactly once.</summary>
    /// <exception cref="StepFailedException">There is no such workflow.</exception>
    public Task SendAsync<T>(string workflowId, T message, string? topic = null)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(workflowId);
        var checkpoint = new Checkpoint<bool>() { Name = "DBOS.send" };
        if (_execution.Begin(checkpoint) is { } recorded)
            ReplayNothing(checkpoint, recorded);
        else
            Outside(() => WaitRunner.SendAsync(_execution, checkpoint, workflowId, topic, _execution.Json.Write(message)));
        return checkpoint.Task;
    }

    /// <summary>
    /// Consumes the oldest message of a topic, exactly once. The default value after <paramref name="timeout"/>; the waiting
    /// time is recorded, so restarts do not extend it.
    /// </summary>
    /// <param name="topic">Null receives messages sent without a topic.</param>
    /// <param name="timeout">Null is 60 s; zero looks once.</param>
    public Task<T?> ReceiveAsync<T>(string? topic = null, TimeSpan? timeout = null)
    {
        var checkpoint = new Checkpoint<T?>() { Name = "DBOS.recv" };
        // Two numbers: the receive, and the timer that bounds it.
        if (_execution.Begin(checkpoint, ids: 2) is { } recorded)
        {
            Replay(checkpoint, recorded);
            return checkpoint.Task;
        }
        RecordedStep? timer = _execution.Recorded(checkpoint.Id + 1, "DBOS.sleep");
        Outside(() => WaitRunner.ReceiveAsync(_execution, checkpoint, topic, timeout ?? TimeSpan.FromSeconds(60), timer));
        return checkpoint.Task;
    }

    /// <summary>
    /// Ends this workflow and enqueues its successor in the same transaction: bounds a long history. Write
    /// <c>return await context.ContinueAsNewAsync(Definition, input);</c>. Whoever awaits this workflow awaits the successor.
    /// </summary>
    public Task<TOut> ContinueAsNewAsync<TIn, TOut>(Workflow<TIn, TOut> workflow, TIn input, string? successorId = null)
    {
        ArgumentNullException.ThrowIfNull(workflow);
        _execution.ThrowIfEnded();
        throw new ContinueAsNewException(new NewWorkflow
        {
            Id = successorId ?? SuccessorId(WorkflowId),
            Name = workflow.Name,
            Inputs = _execution.Json.WriteInputs(_execution.Json.Write(input)),
            Version = _execution.Engine.ApplicationVersion,
            QueueName = _execution.QueueName ?? SystemDatabase.InternalQueue,
        });
    }

    /// <summary><c>run</c>, then <c>run:c2</c>, then <c>run:c3</c>.</summary>
    internal static string SuccessorId(string id)
    {
        int colon = id.LastIndexOf(":c", StringComparison.Ordinal);
        return colon > 0 && int.TryParse(id.AsSpan(colon + 2), out int n) ? $"{id[..colon]}:c{n + 1}" : $"{id}:c2";
    }

    private void Replay<T>(Checkpoint<T> checkpoint, RecordedStep recorded)
    {
        if (recorded.Error is { } error)
            checkpoint.Refuse(StepRunner.Failure(checkpoint.Name, error, null));
        else
            checkpoint.SetRecorded(() => _execution.Json.Read<T>(recorded.Output)!);
        _execution.DeliverRecorded(checkpoint);
    }

    private void ReplayNothing(Checkpoint<bool> checkpoint, RecordedStep recorded)
    {
        if (recorded.Error is { } error)
            checkpoint.Refuse(StepRunner.Failure(checkpoint.Name, error, null));
        _execution.DeliverRecorded(checkpoint);
    }

    private static void Outside(Func<Task> work)
    {
        SynchronizationContext? turn = SynchronizationContext.Current;
        SynchronizationContext.SetSynchronizationContext(null);
        try
        {
            _ = work();
        }
        finally
        {
            SynchronizationContext.SetSynchronizationContext(turn);
        }
    }
}

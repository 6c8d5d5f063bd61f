using Drover.Workflows.Diagnostics;
using Drover.Workflows.Serialization;
using Drover.Workflows.Storage;

namespace Drover.Workflows.Execution;

/// <summary>Why an execution may not go on.</summary>
internal enum ExecutionEnd
{
    Running,
    /// <summary>The outcome was recorded.</summary>
    Completed,
    /// <summary>The workflow was cancelled.</summary>
    Cancelled,
    /// <summary>Another execution owns the workflow.</summary>
    Fenced,
    /// <summary>The host stops, or the database refused: no outcome, the row stays pending and resumes.</summary>
    Interrupted,
}

/// <summary>
/// One attempt of one workflow. The body runs single-threaded in turns: a turn begins when one result is handed over and ends
/// when the body waits again. Recorded results are handed over in step-id order, one per turn, before any live one.
/// <para>Crash points: executor.1 owned · 2 body begins · 3 step looked up · 4 step body begins · 5 step body done, not recorded ·
/// 6 step recorded, not handed over · 7 body done, no outcome · 8 outcome recorded · 9 waiters woken.</para>
/// </summary>
internal sealed class WorkflowExecutor : SynchronizationContext
{
    private static readonly AsyncLocal<Checkpoint?> Branch = new();

    private readonly object _gate = new();
    private readonly Queue<(SendOrPostCallback Call, object? State)> _posted = new();
    private readonly PriorityQueue<Checkpoint, int> _recorded = new();
    private readonly Queue<Checkpoint> _live = new();
    private readonly List<Checkpoint> _outstanding = [];
    private readonly CancellationTokenSource _cancel = new();
    private readonly TaskCompletionSource<ExecutionEnd> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _drained = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly WorkflowDefinition _definition;
    private readonly string? _inputs;

    private CheckpointGroup _group = new();
    private Checkpoint? _root;
    private Task<string>? _body;
    private ExecutionEnd _end;
    private DroverException? _protocolError;
    private bool _pumping;
    private bool _finishing;
    private int _nextStepId;
    private int _activeSteps;

    public WorkflowExecutor(WorkflowEngine engine, WorkflowDefinition definition, ClaimedWorkflow claimed)
    {
        (Engine, _definition, _inputs) = (engine, definition, claimed.Inputs);
        (Id, Token, History, QueueName, DeadlineMs) = (claimed.Id, claimed.Token, claimed.History, claimed.QueueName, claimed.DeadlineMs);
    }

    public WorkflowEngine Engine { get; }
    public SystemDatabase Database => Engine.Database;
    public PortableJson Json => Engine.Json;
    public string Id { get; }
    public string Token { get; }
    public string? QueueName { get; }
    public long? DeadlineMs { get; }
    public IReadOnlyDictionary<int, RecordedStep> History { get; }
    public string Name => _definition.Name;

    /// <summary>Cancelled when the execution must end, for whatever reason.</summary>
    public CancellationToken CancellationToken => _cancel.Token;

    /// <summary>How the execution ended.</summary>
    public Task<ExecutionEnd> Ended => _ended.Task;

    /// <summary>Completes when the execution has ended and none of its step bodies runs any more.</summary>
    public Task Drained => _drained.Task;

    public void Start()
    {
        CrashPoints.Reach("executor.1");
        Post(static self => ((WorkflowExecutor)self!).BeginBody(), this);
    }

    private void BeginBody()
    {
        Branch.Value = null;
        CrashPoints.Reach("executor.2");
        try
        {
            string[] arguments = PortableJson.ReadInputs(_inputs, _definition.Parameters);
            _body = _definition.InvokeAsync(new WorkflowContext(this), arguments, Json);
        }
        catch (Exception e)
        {
            _body = Task.FromException<string>(e);
        }
    }

    // ---- calls of the body -------------------------------------------------------------------------------------------

    /// <summary>
    /// Gives the call its step id and checks that it may be made: from the body itself, while it still owns the workflow, with the
    /// recorded name, and within the parallel rule. Returns the recorded row, if there is one.
    /// </summary>
    public RecordedStep? Begin(Checkpoint checkpoint, int ids = 1)
    {
        if (!ReferenceEquals(Current, this))
        {
            throw new DroverException(ErrorCode.IllegalCall,
                $"'{checkpoint.Name}' was called outside the body of workflow {Id}: call it from the body, without ConfigureAwait(false) or Task.Run");
        }
        ThrowIfEnded();
        checkpoint.Id = _nextStepId;
        _nextStepId += ids;
        Place(checkpoint);
        CrashPoints.Reach("executor.3");
        RecordedStep? recorded = Recorded(checkpoint.Id, checkpoint.Name);
        Branch.Value = checkpoint;
        _outstanding.Add(checkpoint);
        return recorded;
    }

    /// <summary>The recorded row of a step; a row of another name means that the code changed under the workflow.</summary>
    public RecordedStep? Recorded(int id, string name)
    {
        if (!History.TryGetValue(id, out RecordedStep? row))
            return null;
        if (row.Name == name)
            return row;
        throw Protocol($"workflow {Id} recorded step {id} as '{row.Name}', the code now calls '{name}': finish it with the version that began it, or guard the change with a patch");
    }

    // At most one branch of a group may start further checkpoints: with two, the ids would depend on who finished first.
    private void Place(Checkpoint checkpoint)
    {
        Checkpoint? predecessor = Branch.Value;
        if (_outstanding.Count == 0)
            _group = new CheckpointGroup();
        checkpoint.Predecessor = predecessor;
        checkpoint.Group = _group;
        _group.Members++;
        if (predecessor is null)
            _root = checkpoint;
        else
            predecessor.LastFollower = checkpoint;
        if (predecessor is not { Delivered: true } || predecessor.Group.Members < 2)
            return;

        CheckpointGroup group = predecessor.Group;
        if (group.Continued is not { } other || other.IsAncestorOf(predecessor) || predecessor.IsAncestorOf(other))
        {
            (group.Continued, group.ContinuedBy) = (predecessor, checkpoint);
            return;
        }

        // The last call made from one place may be the forking method itself, which goes on legally once all branches are done.
        bool mayBeForkingMethod = IsLastFollower(predecessor);
        if (mayBeForkingMethod && _outstanding.Count == 0)
            return;
        throw Protocol(
            $"workflow {Id}: two parallel branches went on, '{group.ContinuedBy!.Name}' after {other.Label} and '{checkpoint.Name}' after {predecessor.Label}; "
            + "their step numbers would depend on timing: await one before the other goes on, or make a branch a workflow of its own");
    }

    private bool IsLastFollower(Checkpoint checkpoint) =>
        ReferenceEquals(checkpoint.Predecessor is null ? _root : checkpoint.Predecessor.LastFollower, checkpoint);

    private DroverException Protocol(string message) => _protocolError ??= new DroverException(ErrorCode.NonDeterminism, message);

    public void ThrowIfEnded()
    {
        switch (_end)
        {
            case ExecutionEnd.Cancelled:
                throw new DroverException(ErrorCode.Cancelled, $"workflow {Id} was cancelled");
            case ExecutionEnd.Fenced:
                throw new DroverException(ErrorCode.Fenced, $"workflow {Id} is owned by another execution now");
            case ExecutionEnd.Interrupted:
                throw new OperationCanceledException($"workflow {Id} was interrupted and will resume", _cancel.Token);
        }
    }

    // ---- results -----------------------------------------------------------------------------------------------------

    /// <summary>A result from the history: handed over in step-id order.</summary>
    public void DeliverRecorded(Checkpoint checkpoint)
    {
        lock (_gate)
            _recorded.Enqueue(checkpoint, checkpoint.Id);
    }

    /// <summary>A recorded result found outside a turn (a timer that ended while nobody ran).</summary>
    public void DeliverRecordedLate(Checkpoint checkpoint)
    {
        lock (_gate)
        {
            _recorded.Enqueue(checkpoint, checkpoint.Id);
            if (_pumping)
                return;
            _pumping = true;
        }
        Pump();
    }

    /// <summary>A live result: handed over in order of arrival.</summary>
    public void DeliverLive(Checkpoint checkpoint)
    {
        CrashPoints.Reach("executor.6");
        lock (_gate)
        {
            _live.Enqueue(checkpoint);
            if (_pumping)
                return;
            _pumping = true;
        }
        Pump();
    }

    /// <summary>A record of this execution was refused: ends it as the fate says, or hands the body its error.</summary>
    public void Refused(Checkpoint checkpoint, RecordFate fate)
    {
        if (fate == RecordFate.Conflict)
        {
            checkpoint.Refuse(Protocol($"workflow {Id} already recorded another result at {checkpoint.Label}: the body is not deterministic"));
            DeliverLive(checkpoint);
            return;
        }
        End(fate == RecordFate.Cancelled ? ExecutionEnd.Cancelled : ExecutionEnd.Fenced);
    }

    public void StepBegins() => Interlocked.Increment(ref _activeSteps);

    public void StepEnded()
    {
        if (Interlocked.Decrement(ref _activeSteps) == 0 && _ended.Task.IsCompleted)
            _drained.TrySetResult();
    }

    public override void Post(SendOrPostCallback d, object? state)
    {
        lock (_gate)
        {
            _posted.Enqueue((d, state));
            if (_pumping)
                return;
            _pumping = true;
        }
        ThreadPool.UnsafeQueueUserWorkItem(static self => self.Pump(), this, preferLocal: true);
    }

    public override void Send(SendOrPostCallback d, object? state) =>
        throw new NotSupportedException("a workflow body is never entered synchronously from outside");

    private void Pump()
    {
        SynchronizationContext? previous = Current;
        SetSynchronizationContext(this);
        try
        {
            while (NextTurn())
            {
            }
        }
        finally
        {
            SetSynchronizationContext(previous);
        }
        TryFinish();
    }

    private bool NextTurn()
    {
        (SendOrPostCallback Call, object? State) posted;
        Checkpoint? result = null;
        lock (_gate)
        {
            if (_posted.TryDequeue(out posted))
            {
            }
            else if (_end is ExecutionEnd.Interrupted || (!_recorded.TryDequeue(out result, out _) && !_live.TryDequeue(out result)))
            {
                _pumping = false;
                return false;
            }
        }
        if (result is null)
        {
            posted.Call(posted.State);
            return true;
        }
        _outstanding.Remove(result);
        result.Complete();
        return true;
    }

    // ---- the end -----------------------------------------------------------------------------------------------------

    /// <summary>Ends the execution from outside its body. The first reason stands.</summary>
    public void End(ExecutionEnd reason)
    {
        lock (_gate)
        {
            if (_end != ExecutionEnd.Running || _finishing)
                return;
            _end = reason;
        }
        _ = CancelStepsAsync();
        if (reason != ExecutionEnd.Interrupted)
        {
            // The body unwinds: every result it still waits for is replaced by the reason. It can record nothing more.
            Post(static self => ((WorkflowExecutor)self!).RefuseOutstanding(), this);
        }
        Finished(reason);
    }

    // Callbacks that step bodies registered run on the pool, and what they throw is theirs: it must not keep the execution from ending.
    private async Task CancelStepsAsync()
    {
        try
        {
            await _cancel.CancelAsync().ConfigureAwait(false);
        }
        catch (AggregateException e)
        {
            Log.LoopFailed(Engine.Logger, e, "cancellation");
        }
    }

    private void RefuseOutstanding()
    {
        foreach (Checkpoint checkpoint in _outstanding.ToArray())
        {
            try
            {
                ThrowIfEnded();
            }
            catch (Exception e)
            {
                checkpoint.Refuse(e);
            }
            _outstanding.Remove(checkpoint);
            checkpoint.Complete();
        }
    }

    // The outcome waits for checkpoints that the body started and did not await: a step must not run after the end.
    private void TryFinish()
    {
        Task<string> body;
        lock (_gate)
        {
            if (_end != ExecutionEnd.Running || _finishing || _pumping || _body is not { IsCompleted: true } || _outstanding.Count > 0)
                return;
            _finishing = true;
            body = _body;
        }
        _ = RecordOutcomeAsync(body);
    }

    private async Task RecordOutcomeAsync(Task<string> body)
    {
        CrashPoints.Reach("executor.7");
        ExecutionEnd end;
        try
        {
            RecordFate fate = await CompleteAsync(ToOutcome(body)).ConfigureAwait(false);
            end = fate switch
            {
                RecordFate.Done => ExecutionEnd.Completed,
                RecordFate.Cancelled => ExecutionEnd.Cancelled,
                _ => ExecutionEnd.Fenced,
            };
        }
        catch (Exception e)
        {
            Log.OutcomeLost(Engine.Logger, e, Id);
            end = ExecutionEnd.Interrupted;
        }
        CrashPoints.Reach("executor.8");
        _end = end;
        Finished(end);
        CrashPoints.Reach("executor.9");
    }

    // A successor that cannot be created (its id belongs to another workflow) fails the workflow: trying again would not help.
    private async Task<RecordFate> CompleteAsync(Outcome outcome)
    {
        try
        {
            return await Database.CompleteAsync(Id, Token, outcome).ConfigureAwait(false);
        }
        catch (DroverException e) when (outcome.Successor is not null && e.Code is ErrorCode.Conflict or ErrorCode.Deduplicated)
        {
            return await Database.CompleteAsync(Id, Token, new Outcome(null, PortableJson.WriteError(e))).ConfigureAwait(false);
        }
    }

    private Outcome ToOutcome(Task<string> body)
    {
        if (_protocolError is not null)
            return new Outcome(null, PortableJson.WriteError(_protocolError));
        if (body.IsCompletedSuccessfully)
            return new Outcome(body.Result, null);
        Exception error = body.Exception?.InnerException ?? new TaskCanceledException(body);
        return error is ContinueAsNewException next
            ? new Outcome("null", null, next.Successor, _nextStepId)
            : new Outcome(null, PortableJson.WriteError(error));
    }

    private void Finished(ExecutionEnd end)
    {
        if (end == ExecutionEnd.Fenced)
            Log.Parked(Engine.Logger, Id);
        _ended.TrySetResult(end);
        if (Volatile.Read(ref _activeSteps) == 0)
            _drained.TrySetResult();
    }
}

/// <summary>Ends a body that goes on as a new workflow; thrown by the context, never by users.</summary>
internal sealed class ContinueAsNewException(NewWorkflow successor) : Exception("the workflow continues as new")
{
    public NewWorkflow Successor => successor;
}

using System.Collections.Concurrent;
using Drover.Workflows.Diagnostics;
using Drover.Workflows.Storage;

namespace Drover.Workflows.Execution;

/// <summary>
/// Claims queued workflows when there is room for them, and once a second looks after what time brings: delays that end,
/// deadlines that pass, executions that lost their workflow, executors that died.
/// </summary>
internal sealed class QueueDispatcher : IAsyncDisposable
{
    // A little over a second: with the heartbeat's tenth, an idle process makes at most one round trip a second.
    private static readonly TimeSpan Tick = TimeSpan.FromMilliseconds(1_150);

    // Without a reason: the safety net. With one, the next tick looks.
    private static readonly TimeSpan OrphanTick = TimeSpan.FromSeconds(30);
    private const int LargestClaim = 256;

    private readonly WorkflowEngine _engine;
    private readonly WorkflowQueue[] _queues;
    private readonly string[] _queueNames;
    private readonly ConcurrentDictionary<string, int> _runningOf = new(StringComparer.Ordinal);
    private readonly CancellationTokenSource _stop = new();
    private readonly SemaphoreSlim _signal = new(0, 1);
    private Task _loop = Task.CompletedTask;
    private volatile bool _orphansPossible;
    private long _lastOrphanLook;

    public QueueDispatcher(WorkflowEngine engine, IEnumerable<WorkflowQueue> queues)
    {
        _engine = engine;
        _queues = [.. queues, new WorkflowQueue(SystemDatabase.InternalQueue)];
        _queueNames = [.. _queues.Select(q => q.Name)];
    }

    public void Start() => _loop = Task.Run(LoopAsync);

    /// <summary>Looks for work soon.</summary>
    public void Wake()
    {
        if (_signal.CurrentCount > 0)
            return;
        try
        {
            _signal.Release();
        }
        catch (SemaphoreFullException)
        {
            // A look is already due.
        }
        catch (ObjectDisposedException)
        {
            // Stopping.
        }
    }

    /// <summary>The next tick gives back workflows that this executor owns without running them: a write went wrong.</summary>
    public void LookForOrphans() => _orphansPossible = true;

    public void Ended(WorkflowExecutor execution)
    {
        // Only a queued one leaves room behind.
        if (execution.QueueName is not { } queue)
            return;
        _runningOf.AddOrUpdate(queue, 0, static (_, n) => n - 1);
        Wake();
    }

    private async Task LoopAsync()
    {
        TimeProvider time = _engine.Time;
        long lastSweep = 0;
        bool woken = true;
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                bool queued = woken;
                if (lastSweep == 0 || time.GetElapsedTime(lastSweep) >= Tick)
                {
                    lastSweep = time.GetTimestamp();
                    queued |= await SweepAsync().ConfigureAwait(false);
                }
                if (queued)
                    await ClaimAllAsync().ConfigureAwait(false);
                woken = await WaitForSignalAsync().ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                return;
            }
            catch (DroverException e) when (e.Code == ErrorCode.Unavailable)
            {
                return;
            }
            catch (Exception e)
            {
                woken = true;
                Log.LoopFailed(_engine.Logger, e, "dispatcher");
                await PauseAsync().ConfigureAwait(false);
            }
        }
    }

    // False after a second without a signal.
    private async Task<bool> WaitForSignalAsync()
    {
        using var timeout = new CancellationTokenSource(Tick, _engine.Time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, _stop.Token);
        try
        {
            await _signal.WaitAsync(either.Token).ConfigureAwait(false);
            return true;
        }
        catch (OperationCanceledException) when (!_stop.IsCancellationRequested)
        {
            return false;
        }
    }

    private async Task PauseAsync()
    {
        try
        {
            await Task.Delay(Tick, _engine.Time, _stop.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
        }
    }

    private async Task ClaimAllAsync()
    {
        foreach (WorkflowQueue queue in _queues)
        {
            while (!_stop.IsCancellationRequested)
            {
                int room = Math.Min(LargestClaim, (queue.WorkerConcurrency ?? int.MaxValue) - _runningOf.GetValueOrDefault(queue.Name));
                if (room <= 0 || !await HasWorkAsync(queue.Name).ConfigureAwait(false))
                    break;
                List<ClaimedWorkflow> claimed = await ClaimAsync(queue, room).ConfigureAwait(false);
                // Only a claim that filled its room may have left more behind.
                if (claimed.Count < room)
                    break;
            }
        }
    }

    private async Task<List<ClaimedWorkflow>> ClaimAsync(WorkflowQueue queue, int room)
    {
        string token = SystemDatabase.NewToken();
        using WorkflowEngine.Dispatching dispatch = _engine.BeginDispatch(token);
        List<ClaimedWorkflow> claimed;
        try
        {
            claimed = await _engine.Database.ClaimAsync(
                queue.Name, queue.Concurrency, room, _engine.ExecutorId, _engine.ApplicationVersion, _engine.Registry.Keys, token).ConfigureAwait(false);
        }
        catch
        {
            // The rows may be ours although the answer is an error.
            LookForOrphans();
            throw;
        }
        foreach (ClaimedWorkflow workflow in claimed)
        {
            // All of them are ours now: an error of one must not keep the others from running.
            try
            {
                await DispatchAsync(workflow).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                Log.GiveBackFailed(_engine.Logger, e, workflow.Id);
                LookForOrphans();
            }
        }
        return claimed;
    }

    // A read costs a twentieth of a claim's commit; most looks find nothing.
    private ValueTask<bool> HasWorkAsync(string queue) => _engine.Database.ReadAsync(session => session.Number("""
        SELECT EXISTS (SELECT 1 FROM {p}workflow_status WHERE queue_name = @queue AND status = 'ENQUEUED'
            AND (application_name = @app OR application_name IS NULL OR @app IS NULL))
        """, ("@queue", queue), ("@app", _engine.Database.ApplicationName)) != 0, _stop.Token);

    private async Task DispatchAsync(ClaimedWorkflow claimed)
    {
        if (!_engine.Registry.TryGetValue(claimed.Name, out WorkflowDefinition? definition))
        {
            Log.NotRegistered(_engine.Logger, claimed.Id, claimed.Name);
            return;
        }
        if (PoisonReason(definition, claimed) is { } reason)
        {
            Log.DeadLettered(_engine.Logger, claimed.Id, claimed.Name, reason);
            await _engine.Database.DeadLetterAsync(claimed.Id, claimed.Token).ConfigureAwait(false);
            _engine.Wakeups.Wake(Wakeups.Result(claimed.Id));
            return;
        }
        if (claimed.QueueName is { } queue)
            _runningOf.AddOrUpdate(queue, 1, static (_, n) => n + 1);
        _engine.Run(definition, claimed);
    }

    private static string? PoisonReason(WorkflowDefinition definition, ClaimedWorkflow claimed)
    {
        if (definition.Limits.MaxRecoveryAttempts is { } limit && claimed.RecoveryAttempts > limit + 1)
            return $"claimed {claimed.RecoveryAttempts} times, the limit is {limit}";
        if (definition.Limits.MaxStalledRecoveries is { } stalled && claimed.StalledRecoveries >= stalled)
            return $"recovered {claimed.StalledRecoveries} times in a row without a new step";
        return null;
    }

    // True when a queue of ours holds something.
    private async Task<bool> SweepAsync()
    {
        DueWork due = await _engine.Database.DueAsync(_engine.ExecutorId, _queueNames, _stop.Token).ConfigureAwait(false);
        if (due.Delayed)
            await _engine.Database.ReleaseDelayedAsync().ConfigureAwait(false);
        if (due.Expired)
            _engine.CancelledHere(await _engine.Database.CancelExpiredAsync().ConfigureAwait(false));
        await _engine.CheckOwnershipAsync(_stop.Token).ConfigureAwait(false);
        bool given = await GiveBackOrphansAsync().ConfigureAwait(false);
        int taken = due.OtherExecutors ? await _engine.Lease.RecoverDeadAsync(_stop.Token).ConfigureAwait(false) : 0;
        return due.Queued || due.Delayed || given || taken > 0;
    }

    private async Task<bool> GiveBackOrphansAsync()
    {
        long now = _engine.Time.GetTimestamp();
        if (!_orphansPossible && _engine.Time.GetElapsedTime(_lastOrphanLook, now) < OrphanTick)
            return false;
        // Cleared before the look: what goes wrong meanwhile is seen by the next one.
        (_orphansPossible, _lastOrphanLook) = (false, now);
        try
        {
            return await _engine.GiveBackOrphansAsync(_stop.Token).ConfigureAwait(false);
        }
        catch
        {
            _orphansPossible = true;
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _loop.ConfigureAwait(false);
        _signal.Dispose();
        _stop.Dispose();
    }
}

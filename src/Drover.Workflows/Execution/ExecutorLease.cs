using Drover.Workflows.Diagnostics;
using Drover.Workflows.Storage;
using Microsoft.Extensions.Logging;

namespace Drover.Workflows.Execution;

/// <summary>
/// The life of an executor: registered, renewed at a third of the lease, and proved alive by a lock that only the end of the
/// process frees. Also finds dead executors and takes their work.
/// </summary>
internal sealed class ExecutorLease
{
    private readonly SystemDatabase _database;
    private readonly WorkflowEngineOptions _options;
    private readonly ILogger _log;
    private readonly string _token = SystemDatabase.NewToken();
    private readonly Action _onLost;
    private readonly CancellationTokenSource _stop = new();
    private readonly ExecutorInfo _self;
    private IDisposable? _life;
    private Task _heartbeat = Task.CompletedTask;

    public ExecutorLease(SystemDatabase database, WorkflowEngineOptions options, string executorId, string version, ILogger log, Action onLost)
    {
        (_database, _options, _log, _onLost) = (database, options, log, onLost);
        _self = ProcessFacts.Describe(executorId, options.ApplicationName, version);
    }

    public async Task StartAsync()
    {
        _life = _database.Dialect.TryLockExecutor(_self.Id)
            ?? throw new DroverException(ErrorCode.Conflict, $"executor {_self.Id} is already alive");
        await _database.RegisterExecutorAsync(_self, ProcessFacts.MachineId, _token, LeaseMs).ConfigureAwait(false);
        _heartbeat = BeatAsync();
    }

    /// <summary>Takes the work of every executor that is proved dead; returns how many workflows.</summary>
    public async Task<int> RecoverDeadAsync(CancellationToken cancellationToken)
    {
        int taken = 0;
        foreach (ExecutorInfo other in await _database.OtherExecutorsAsync(_self.Id, cancellationToken).ConfigureAwait(false))
        {
            if (_database.Dialect.IsExecutorDead(other.Id))
                taken += await TakeOverAsync(other, cancellationToken).ConfigureAwait(false);
        }
        return taken;
    }

    /// <summary>Takes the work of the named executors whether they live or not; the living ones are fenced.</summary>
    public async Task<int> RecoverAsync(IReadOnlyCollection<string> executorIds, CancellationToken cancellationToken)
    {
        int taken = 0;
        foreach (ExecutorInfo other in await _database.OtherExecutorsAsync(_self.Id, cancellationToken).ConfigureAwait(false))
        {
            if (executorIds.Contains(other.Id))
                taken += await TakeOverAsync(other, cancellationToken).ConfigureAwait(false);
        }
        return taken;
    }

    private async Task<int> TakeOverAsync(ExecutorInfo other, CancellationToken cancellationToken)
    {
        // Processes first: no new attempt may start while the old one still writes.
        if (_options.OnExecutorDead is { } end)
            await end(other, cancellationToken).ConfigureAwait(false);
        int taken = await _database.TakeOverAsync(other.Id, _self.Id).ConfigureAwait(false);
        if (taken > 0)
            Log.TookOver(_log, taken, other.Id);
        if (_database.Dialect.IsExecutorDead(other.Id))
        {
            await _database.RemoveExecutorAsync(other.Id).ConfigureAwait(false);
            _database.Dialect.ForgetExecutor(other.Id);
        }
        return taken;
    }

    private long LeaseMs => (long)_options.Lease.TotalMilliseconds;

    private async Task BeatAsync()
    {
        while (true)
        {
            try
            {
                await Task.Delay(_options.Lease / 3, _options.Time, _stop.Token).ConfigureAwait(false);
                if (await _database.HeartbeatAsync(_self.Id, _token, LeaseMs).ConfigureAwait(false))
                    continue;
                Log.LeaseLost(_log);
                _onLost();
                return;
            }
            catch (OperationCanceledException)
            {
                return;
            }
            catch (DroverException e) when (e.Code == ErrorCode.Unavailable)
            {
                // The writer stopped first.
                return;
            }
            catch (Exception e)
            {
                // An error of the database says nothing about the lease: only the row can say that it is lost.
                Log.LoopFailed(_log, e, "heartbeat");
            }
        }
    }

    /// <summary>
    /// Ends the heartbeat, gives back what this executor owned, and removes it. What a failing database refuses here is left to the
    /// next start, which sees that the life lock is free.
    /// </summary>
    /// <param name="stillRunning">
    /// Workflows with a step body that did not return. They keep their owner, and the executor its life lock, until the process ends:
    /// nobody may run a step beside its former self.
    /// </param>
    public async Task EndAsync(IReadOnlyCollection<string> stillRunning)
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _heartbeat.ConfigureAwait(false);
        _stop.Dispose();
        if (_life is null)
            return;
        try
        {
            if (stillRunning.Count > 0)
            {
                Log.StepsLeftRunning(_log, stillRunning.Count);
                await _database.GiveBackOthersAsync(_self.Id, stillRunning).ConfigureAwait(false);
                return;
            }
            await _database.TakeOverAsync(_self.Id, _self.Id).ConfigureAwait(false);
            await _database.RemoveExecutorAsync(_self.Id).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Log.NotGivenBack(_log, e);
        }
        finally
        {
            if (stillRunning.Count == 0)
                _life.Dispose();
        }
    }
}

using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;
using Drover.Workflows.Execution;
using Drover.Workflows.Serialization;
using Drover.Workflows.Storage;
using Microsoft.Extensions.Logging;

namespace Drover.Workflows;

/// <summary>
/// Runs workflows in this process: migrates, takes over the work of dead executors, serves queues, stops in order. One engine is
/// one executor.
/// </summary>
public sealed class WorkflowEngine : IAsyncDisposable
{
    private readonly WorkflowEngineOptions _options;
    private readonly ConcurrentDictionary<string, WorkflowExecutor> _running = new(StringComparer.Ordinal);

    // Every attempt from its dispatch to its very end, and before that the owner tokens of starts and claims under way: a row that
    // this executor owns under another token runs nowhere.
    private readonly ConcurrentDictionary<(string Id, string Token), byte> _attempts = new();
    private readonly ConcurrentDictionary<string, byte> _dispatching = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, int> _interruptions = new(StringComparer.Ordinal);

    private readonly object _gate = new();
    private readonly CancellationTokenSource _lost = new();
    private readonly CancellationTokenSource _halt = new();

    // Never disposed: a late StopAsync may still cancel it, and it holds nothing.
    private readonly CancellationTokenSource _leaveSteps = new();
    private readonly CancellationToken _halted;
    private IDisposable? _nudges;
    private Task<bool>? _stop;
    private Task? _dispose;
    private int _lookPending;
    private bool _started;
    private volatile bool _stopping;

    /// <summary>Creates an engine; nothing is opened for writing before <see cref="StartAsync"/>.</summary>
    public WorkflowEngine(WorkflowEngineOptions options, IServiceProvider services, ILogger<WorkflowEngine> logger)
    {
        ArgumentNullException.ThrowIfNull(options);
        SqlDialect dialect = options.Dialect
            ?? throw new DroverException(ErrorCode.InvalidInput, "no database was chosen: call UseSqlite(path) on the options");
        (_options, Services, Logger) = (options, services, logger);
        (Lost, _halted) = (_lost.Token, _halt.Token);
        Json = new PortableJson(options.JsonContexts);
        foreach (WorkflowDefinition workflow in options.Workflows)
        {
            if (!Registry.TryAdd(workflow.Name, workflow))
                throw new DroverException(ErrorCode.InvalidInput, $"two workflows are named {workflow.Name}: names are part of the recorded protocol");
        }
        foreach (WorkflowQueue queue in options.Queues)
        {
            if (queue.Name.StartsWith("_dbos_", StringComparison.Ordinal))
                throw new DroverException(ErrorCode.InvalidInput, $"the queue name {queue.Name} is reserved: choose one that does not begin with _dbos_");
        }
        ApplicationVersion = options.ApplicationVersion ?? DefaultVersion(options.Workflows);
        Database = new SystemDatabase(dialect, options.Time, logger, options.ApplicationName);
        Dispatcher = new QueueDispatcher(this, options.Queues);
        Lease = new ExecutorLease(Database, options, ExecutorId, ApplicationVersion, logger, OnLeaseLost);
        Client = new WorkflowClient(Database, Json, Wakeups, options.Time, this);
    }

    /// <summary>This process's id as an executor; new at every start.</summary>
    public string ExecutorId { get; } = Guid.CreateVersion7().ToString("N");

    /// <summary>The version under which workflows are started and recovered.</summary>
    public string ApplicationVersion { get; }

    /// <summary>Starts and manages workflows.</summary>
    public WorkflowClient Client { get; }

    /// <summary>Cancelled, once, when this executor may run nothing more although nobody stopped it: its lease was taken.</summary>
    public CancellationToken Lost { get; }

    internal IServiceProvider Services { get; }
    internal ILogger Logger { get; }
    internal TimeProvider Time => _options.Time;
    internal PortableJson Json { get; }
    internal Wakeups Wakeups { get; } = new();
    internal SystemDatabase Database { get; }
    internal QueueDispatcher Dispatcher { get; }
    internal ExecutorLease Lease { get; }
    internal Dictionary<string, WorkflowDefinition> Registry { get; } = new(StringComparer.Ordinal);

    /// <summary>Migrates the database, takes over what dead executors left, and begins to serve the queues.</summary>
    public async Task StartAsync(CancellationToken cancellationToken = default)
    {
        if (_started || _stopping)
            throw new DroverException(ErrorCode.IllegalCall, "an engine starts once, and not after it was stopped: create another one");
        _started = true;
        await Database.MigrateAsync(_options.Migrations).WaitAsync(cancellationToken).ConfigureAwait(false);
        await Lease.StartAsync().ConfigureAwait(false);
        await Lease.RecoverDeadAsync(cancellationToken).ConfigureAwait(false);
        _nudges = Database.Dialect.Listen(LookAround);
        Database.Writer.OnForeignCommit(LookAround);
        Dispatcher.Start();
    }

    /// <summary>
    /// Takes over the work of executors on request, dead or not. A living one is fenced: its every further write is refused.
    /// Returns how many workflows were taken.
    /// </summary>
    public Task<int> RecoverExecutorsAsync(IReadOnlyCollection<string> executorIds, CancellationToken cancellationToken = default) =>
        Lease.RecoverAsync(executorIds, cancellationToken);

    /// <summary>
    /// Stops: claims nothing more, interrupts what runs (no outcome, no checkpoint: it resumes at the next start), waits for
    /// running steps to return, gives the work back and lets go of the executor. Every call waits for the same stop.
    /// <para>A database that refuses or blocks holds it up for about 2 s (5 s inside a transaction): what waits to be recorded then fails with
    /// <see cref="ErrorCode.Unavailable"/>, nothing of it is acknowledged, and the next start takes the work over.</para>
    /// </summary>
    /// <param name="cancellationToken">
    /// Ends the wait for steps that ignore their token. Such a workflow keeps its owner and is not run by anybody before this process ends.
    /// </param>
    /// <exception cref="OperationCanceledException">The token ended the wait while steps still ran; all else has stopped.</exception>
    public async Task StopAsync(CancellationToken cancellationToken = default)
    {
        Task<bool> stop;
        lock (_gate)
            stop = _stop ??= Task.Run(StopCoreAsync, CancellationToken.None);
        using (cancellationToken.Register(static source => ((CancellationTokenSource)source!).Cancel(), _leaveSteps))
        {
            if (!await stop.ConfigureAwait(false))
                cancellationToken.ThrowIfCancellationRequested();
        }
    }

    // False when step bodies still run because a caller would wait no longer.
    private async Task<bool> StopCoreAsync()
    {
        _stopping = true;
        Database.Writer.BoundWaits();
        await _halt.CancelAsync().ConfigureAwait(false);
        await Dispatcher.DisposeAsync().ConfigureAwait(false);
        // Snapshots: an execution that begins later sees _stopping and ends itself.
        WorkflowExecutor[] executions = [.. _running.Values];
        foreach (WorkflowExecutor execution in executions)
            execution.End(ExecutionEnd.Interrupted);
        try
        {
            await Task.WhenAll(executions.Select(e => e.Drained)).WaitAsync(_leaveSteps.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // A caller would wait no longer.
        }
        _nudges?.Dispose();
        string[] left = [.. executions.Where(e => !e.Drained.IsCompleted).Select(e => e.Id)];
        if (_started)
            await Lease.EndAsync(left).ConfigureAwait(false);
        return left.Length == 0;
    }

    /// <summary>True while an execution of the workflow has not ended in this process: its end wakes every waiter here.</summary>
    internal bool IsRunning(string workflowId) => _running.TryGetValue(workflowId, out WorkflowExecutor? execution) && !execution.Ended.IsCompleted;

    /// <summary>Says that a row may become this executor's under the token; disposed when its execution was handed over, or there is none.</summary>
    /// <exception cref="DroverException">The engine stops: nothing more may begin.</exception>
    internal Dispatching BeginDispatch(string token)
    {
        if (_stopping)
            throw new DroverException(ErrorCode.Unavailable, "the engine has stopped: it can start nothing more");
        _dispatching.TryAdd(token, 0);
        return new Dispatching(this, token);
    }

    internal readonly struct Dispatching(WorkflowEngine engine, string token) : IDisposable
    {
        public void Dispose() => engine._dispatching.TryRemove(token, out _);
    }

    /// <summary>Attempts that this process runs or is about to give back.</summary>
    internal int Attempts => _attempts.Count;

    internal void Run(WorkflowDefinition definition, ClaimedWorkflow claimed)
    {
        _attempts.TryAdd((claimed.Id, claimed.Token), 0);
        _ = RunAsync(new WorkflowExecutor(this, definition, claimed));
    }

    private async Task RunAsync(WorkflowExecutor execution)
    {
        // A stale execution of the same workflow must have no step body running before the next one starts.
        while (!_running.TryAdd(execution.Id, execution))
        {
            if (_running.TryGetValue(execution.Id, out WorkflowExecutor? stale))
            {
                stale.End(ExecutionEnd.Fenced);
                await stale.Drained.ConfigureAwait(false);
                _running.TryRemove(new KeyValuePair<string, WorkflowExecutor>(stale.Id, stale));
            }
        }
        Database.Writer.WatchClosely = true;
        using ITimer? deadline = DeadlineTimer(execution);
        if (_stopping)
            execution.End(ExecutionEnd.Interrupted);
        execution.Start();
        ExecutionEnd end = await execution.Ended.ConfigureAwait(false);
        await execution.Drained.ConfigureAwait(false);
        if (end == ExecutionEnd.Interrupted)
            await GiveBackAsync(execution).ConfigureAwait(false);
        else
            _interruptions.TryRemove(execution.Id, out _);
        _running.TryRemove(new KeyValuePair<string, WorkflowExecutor>(execution.Id, execution));
        _attempts.TryRemove((execution.Id, execution.Token), out _);
        Database.Writer.WatchClosely = !_running.IsEmpty || Wakeups.HasWaiters;
        Wakeups.Wake(Wakeups.Result(execution.Id));
        Dispatcher.Ended(execution);
    }

    // The database refused a record, or a transaction took too long: this attempt is over, but the process lives, so the workflow must
    // not wait for its end. The pause grows to a minute while nothing else comes of it; a claim counts as a recovery attempt.
    private async Task GiveBackAsync(WorkflowExecutor execution)
    {
        int times = _interruptions.AddOrUpdate(execution.Id, 1, static (_, n) => n + 1);
        try
        {
            await Task.Delay(TimeSpan.FromSeconds(Math.Min(60, 1 << Math.Min(times - 1, 6))), Time, _halted).ConfigureAwait(false);
            await Database.GiveBackAsync(execution.Id, execution.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // The stop gives back everything, and what was lost is not ours.
        }
        catch (Exception e)
        {
            Diagnostics.Log.GiveBackFailed(Logger, e, execution.Id);
            Dispatcher.LookForOrphans();
        }
    }

    /// <summary>Gives back what this executor owns by the rows although no attempt of it exists; true when there was any.</summary>
    internal async Task<bool> GiveBackOrphansAsync(CancellationToken cancellationToken)
    {
        int given = 0;
        foreach ((string id, string token) in await Database.OwnedAsync(ExecutorId, cancellationToken).ConfigureAwait(false))
        {
            // In this order: a token leaves the first only after its attempt is in the second. An attempt that ended since the read
            // left a row that the token does not match.
            if (_dispatching.ContainsKey(token) || _attempts.ContainsKey((id, token)))
                continue;
            if (await Database.GiveBackAsync(id, token).ConfigureAwait(false))
                given++;
        }
        if (given > 0)
            Diagnostics.Log.OrphansGivenBack(Logger, given);
        return given > 0;
    }

    // The database sweep is what counts; this only makes an expected end prompt.
    private ITimer? DeadlineTimer(WorkflowExecutor execution)
    {
        if (execution.DeadlineMs is not { } deadline)
            return null;
        var left = TimeSpan.FromMilliseconds(Math.Clamp(deadline - Database.NowMs, 0, (long)TimeSpan.FromDays(20).TotalMilliseconds));
        return Time.CreateTimer(static state =>
        {
            (WorkflowEngine engine, string id) = ((WorkflowEngine, string))state!;
            _ = engine.ExpireAsync(id);
        }, (this, execution.Id), left, Timeout.InfiniteTimeSpan);
    }

    private async Task ExpireAsync(string id)
    {
        try
        {
            List<string> cancelled = await Database.CancelExpiredAsync().ConfigureAwait(false);
            CancelledHere(cancelled);
        }
        catch (DroverException)
        {
            // Stopping: the next start's sweep cancels it.
            _ = id;
        }
    }

    /// <summary>Ends executions of this process whose workflows were just cancelled.</summary>
    internal void CancelledHere(IEnumerable<string> ids)
    {
        foreach (string id in ids)
        {
            if (_running.TryGetValue(id, out WorkflowExecutor? execution))
                execution.End(ExecutionEnd.Cancelled);
            Wakeups.Wake(Wakeups.Result(id));
        }
    }

    /// <summary>Ends executions whose workflow somebody else cancelled, resumed or took.</summary>
    internal async Task CheckOwnershipAsync(CancellationToken cancellationToken)
    {
        var tokens = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (WorkflowExecutor execution in _running.Values)
        {
            if (!execution.Ended.IsCompleted)
                tokens[execution.Id] = execution.Token;
        }
        if (tokens.Count == 0)
            return;
        foreach ((string id, WorkflowState state) in await Database.LostOwnershipAsync(tokens, cancellationToken).ConfigureAwait(false))
        {
            if (_running.TryGetValue(id, out WorkflowExecutor? execution) && execution.Token == tokens[id])
                execution.End(state == WorkflowState.Cancelled ? ExecutionEnd.Cancelled : ExecutionEnd.Fenced);
        }
    }

    // Another process committed something: every waiter looks again, the dispatcher too. Coalesced: one look at a time.
    private void LookAround()
    {
        if (Interlocked.Exchange(ref _lookPending, 1) != 0)
            return;
        ThreadPool.UnsafeQueueUserWorkItem(static engine => _ = engine.LookAroundAsync(), this, preferLocal: false);
    }

    private async Task LookAroundAsync()
    {
        Volatile.Write(ref _lookPending, 0);
        Wakeups.WakeAll();
        Dispatcher.Wake();
        try
        {
            await CheckOwnershipAsync(CancellationToken.None).ConfigureAwait(false);
        }
        catch (DroverException)
        {
            // Stopping, or the database is away: the dispatcher's tick looks again and reports it.
        }
    }

    private void OnLeaseLost()
    {
        foreach (WorkflowExecutor execution in _running.Values)
            execution.End(ExecutionEnd.Fenced);
        _ = SayLostAsync();
    }

    // Callbacks run on the pool: one that throws, or waits for the engine's stop, must not hold the heartbeat that found the loss.
    private async Task SayLostAsync()
    {
        try
        {
            await Task.WhenAll(_halt.CancelAsync(), _lost.CancelAsync()).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Diagnostics.Log.LoopFailed(Logger, e, "lease");
        }
    }

    private static string DefaultVersion(IEnumerable<WorkflowDefinition> workflows)
    {
        var text = new StringBuilder();
        foreach (WorkflowDefinition workflow in workflows.OrderBy(w => w.Name, StringComparer.Ordinal))
            text.Append(workflow.Name).Append('\n').Append(workflow.Home.Module.ModuleVersionId).Append('\n');
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text.ToString())))[..32];
    }

    /// <summary>Stops as <see cref="StopAsync"/> does, then closes the database. Every call waits for the same end.</summary>
    public async ValueTask DisposeAsync()
    {
        Task dispose;
        lock (_gate)
            dispose = _dispose ??= DisposeCoreAsync();
        await dispose.ConfigureAwait(false);
    }

    private async Task DisposeCoreAsync()
    {
        try
        {
            await StopAsync().ConfigureAwait(false);
        }
        finally
        {
            await Database.DisposeAsync().ConfigureAwait(false);
            _lost.Dispose();
            _halt.Dispose();
        }
    }
}

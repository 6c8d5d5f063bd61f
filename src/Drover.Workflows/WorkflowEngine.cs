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
    private IDisposable? _nudges;
    private int _lookPending;
    private bool _started;
    private bool _stopping;
    private bool _disposed;

    /// <summary>Creates an engine; nothing is opened for writing before <see cref="StartAsync"/>.</summary>
    public WorkflowEngine(WorkflowEngineOptions options, IServiceProvider services, ILogger<WorkflowEngine> logger)
    {
        ArgumentNullException.ThrowIfNull(options);
        SqlDialect dialect = options.Dialect
            ?? throw new DroverException(ErrorCode.InvalidInput, "no database was chosen: call UseSqlite(path) on the options");
        (_options, Services, Logger) = (options, services, logger);
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

    /// <summary>Completes when this executor may run nothing more although nobody stopped it (its lease was taken).</summary>
    public CancellationToken Lost => _lost.Token;

    internal IServiceProvider Services { get; }
    internal ILogger Logger { get; }
    internal TimeProvider Time => _options.Time;
    internal PortableJson Json { get; }
    internal Wakeups Wakeups { get; } = new();
    internal SystemDatabase Database { get; }
    internal QueueDispatcher Dispatcher { get; }
    internal ExecutorLease Lease { get; }
    internal Dictionary<string, WorkflowDefinition> Registry { get; } = new(StringComparer.Ordinal);

    private readonly CancellationTokenSource _lost = new();

    /// <summary>Migrates the database, takes over what dead executors left, and begins to serve the queues.</summary>
    public async Task StartAsync(CancellationToken cancellationToken = default)
    {
        if (_started)
            throw new DroverException(ErrorCode.IllegalCall, "the engine was started already");
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
    /// running steps to return, then lets go of the executor.
    /// </summary>
    public async Task StopAsync(CancellationToken cancellationToken = default)
    {
        if (_disposed || _stopping)
            return;
        _stopping = true;
        await Dispatcher.DisposeAsync().ConfigureAwait(false);
        foreach (WorkflowExecutor execution in _running.Values)
            execution.End(ExecutionEnd.Interrupted);
        foreach (WorkflowExecutor execution in _running.Values)
            await execution.Drained.WaitAsync(cancellationToken).ConfigureAwait(false);
        _nudges?.Dispose();
        if (_started)
            await Lease.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>True while an execution of the workflow has not ended in this process: its end wakes every waiter here.</summary>
    internal bool IsRunning(string workflowId) => _running.TryGetValue(workflowId, out WorkflowExecutor? execution) && !execution.Ended.IsCompleted;

    internal void Run(WorkflowDefinition definition, ClaimedWorkflow claimed)
    {
        var execution = new WorkflowExecutor(this, definition, claimed);
        _ = RunAsync(execution);
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
        if (end == ExecutionEnd.Interrupted && !_stopping && !_lost.IsCancellationRequested)
            await GiveBackAsync(execution).ConfigureAwait(false);
        _running.TryRemove(new KeyValuePair<string, WorkflowExecutor>(execution.Id, execution));
        Database.Writer.WatchClosely = !_running.IsEmpty || Wakeups.HasWaiters;
        Wakeups.Wake(Wakeups.Result(execution.Id));
        Dispatcher.Ended(execution);
    }

    // The database refused a record: this attempt is over, but the process lives, so the workflow must not wait for its end.
    private async Task GiveBackAsync(WorkflowExecutor execution)
    {
        try
        {
            await Task.Delay(TimeSpan.FromSeconds(1), Time, _lost.Token).ConfigureAwait(false);
            await Database.GiveBackAsync(execution.Id, execution.Token).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Diagnostics.Log.OutcomeLost(Logger, e, execution.Id);
        }
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
        _lost.Cancel();
    }

    private static string DefaultVersion(IEnumerable<WorkflowDefinition> workflows)
    {
        var text = new StringBuilder();
        foreach (WorkflowDefinition workflow in workflows.OrderBy(w => w.Name, StringComparer.Ordinal))
            text.Append(workflow.Name).Append('\n').Append(workflow.Home.Module.ModuleVersionId).Append('\n');
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text.ToString())))[..32];
    }

    /// <summary>Stops, then closes the database.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_disposed)
            return;
        await StopAsync().ConfigureAwait(false);
        _disposed = true;
        await Database.DisposeAsync().ConfigureAwait(false);
        _lost.Dispose();
    }
}

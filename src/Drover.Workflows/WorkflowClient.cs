using Drover.Workflows.Execution;
using Drover.Workflows.Serialization;
using Drover.Workflows.Storage;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Drover.Workflows;

/// <summary>
/// Starts, finds and manages workflows. An engine has one; a program that runs no workflows opens one by itself with
/// <see cref="ConnectAsync"/>.
/// </summary>
public sealed class WorkflowClient : IAsyncDisposable
{
    private static readonly TimeSpan SafetyNet = TimeSpan.FromSeconds(5);

    private readonly SystemDatabase _database;
    private readonly PortableJson _json;
    private readonly Wakeups _wakeups;
    private readonly TimeProvider _time;
    private readonly WorkflowEngine? _engine;
    private IDisposable? _nudges;

    internal WorkflowClient(SystemDatabase database, PortableJson json, Wakeups wakeups, TimeProvider time, WorkflowEngine? engine) =>
        (_database, _json, _wakeups, _time, _engine) = (database, json, wakeups, time, engine);

    /// <summary>Opens a client without an engine. The dialect belongs to the client from then on.</summary>
    public static async Task<WorkflowClient> ConnectAsync(WorkflowEngineOptions options, ILogger<WorkflowEngine>? logger = null)
    {
        ArgumentNullException.ThrowIfNull(options);
        SqlDialect dialect = options.Dialect
            ?? throw new DroverException(ErrorCode.InvalidInput, "no database was chosen: call UseSqlite(path) on the options");
        var database = new SystemDatabase(dialect, options.Time, logger ?? NullLogger<WorkflowEngine>.Instance, options.ApplicationName);
        var wakeups = new Wakeups();
        var client = new WorkflowClient(database, new PortableJson(options.JsonContexts), wakeups, options.Time, null);
        try
        {
            await database.MigrateAsync(options.Migrations).ConfigureAwait(false);
        }
        catch
        {
            await database.DisposeAsync().ConfigureAwait(false);
            throw;
        }
        client._nudges = dialect.Listen(wakeups.WakeAll);
        database.Writer.OnForeignCommit(wakeups.WakeAll);
        return client;
    }

    /// <summary>Starts a workflow in this process at once. The same id returns the same workflow.</summary>
    public Task<WorkflowHandle<TOut>> StartAsync<TIn, TOut>(
        Workflow<TIn, TOut> workflow, TIn input, StartOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(workflow);
        return StartCoreAsync<TOut>(workflow, _json.WriteInputs(_json.Write(input)), options, cancellationToken);
    }

    /// <summary>Starts a workflow without input.</summary>
    public Task<WorkflowHandle<TOut>> StartAsync<TOut>(Workflow<TOut> workflow, StartOptions? options = null, CancellationToken cancellationToken = default) =>
        StartCoreAsync<TOut>(workflow, _json.WriteInputs(), options, cancellationToken);

    /// <summary>Starts a workflow with two inputs.</summary>
    public Task<WorkflowHandle<TOut>> StartAsync<T1, T2, TOut>(
        Workflow<T1, T2, TOut> workflow, T1 first, T2 second, StartOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(workflow);
        return StartCoreAsync<TOut>(workflow, _json.WriteInputs(_json.Write(first), _json.Write(second)), options, cancellationToken);
    }

    /// <summary>Starts a workflow with three inputs.</summary>
    public Task<WorkflowHandle<TOut>> StartAsync<T1, T2, T3, TOut>(
        Workflow<T1, T2, T3, TOut> workflow, T1 first, T2 second, T3 third, StartOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(workflow);
        return StartCoreAsync<TOut>(workflow, _json.WriteInputs(_json.Write(first), _json.Write(second), _json.Write(third)), options, cancellationToken);
    }

    private async Task<WorkflowHandle<TOut>> StartCoreAsync<TOut>(
        WorkflowDefinition workflow, string inputs, StartOptions? options, CancellationToken cancellationToken)
    {
        WorkflowEngine engine = _engine
            ?? throw new DroverException(ErrorCode.IllegalCall, "a client without an engine cannot run workflows: enqueue instead");
        if (!engine.Registry.ContainsKey(workflow.Name))
            throw new DroverException(ErrorCode.InvalidInput, $"workflow {workflow.Name} is not registered: add it to the options before the engine starts");
        if (options?.WorkflowId is { } given && string.IsNullOrWhiteSpace(given))
            throw new DroverException(ErrorCode.InvalidInput, "a workflow id may not be empty");
        var row = new NewWorkflow
        {
            Id = options?.WorkflowId ?? Guid.CreateVersion7().ToString(),
            Name = workflow.Name,
            Inputs = inputs,
            Version = engine.ApplicationVersion,
            ExecutorId = engine.ExecutorId,
            TimeoutMs = options?.Timeout is { } timeout ? (long)Math.Ceiling(timeout.TotalMilliseconds) : null,
        };
        // The caller's token ends the wait only: a row that was written must run, whoever still waits for it.
        return new WorkflowHandle<TOut>(this, await InsertAndRunAsync(engine, workflow, row).WaitAsync(cancellationToken).ConfigureAwait(false));
    }

    private async Task<string> InsertAndRunAsync(WorkflowEngine engine, WorkflowDefinition workflow, NewWorkflow row)
    {
        using WorkflowEngine.Dispatching dispatch = engine.BeginDispatch(row.Token);
        InsertedWorkflow inserted;
        try
        {
            inserted = await _database.InsertAsync(row).ConfigureAwait(false);
        }
        catch
        {
            // The row may be there although the answer is an error.
            engine.Dispatcher.LookForOrphans();
            throw;
        }
        if (inserted.IsOurs && inserted.State == WorkflowState.Pending)
        {
            // Only this insert's own creator token proves that there is no history to read.
            engine.Run(workflow, new ClaimedWorkflow(row.Id, row.Name, row.Inputs, StepRows.Format, row.Token, null, 1, inserted.DeadlineMs, 0,
                new Dictionary<int, RecordedStep>()));
        }
        return inserted.Id;
    }

    /// <summary>Puts a workflow on a queue. The same id returns the same workflow.</summary>
    public Task<WorkflowHandle<TOut>> EnqueueAsync<TIn, TOut>(
        WorkflowQueue queue, Workflow<TIn, TOut> workflow, TIn input, EnqueueOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(workflow);
        return EnqueueCoreAsync<TOut>(queue, workflow.Name, _json.WriteInputs(_json.Write(input)), options, cancellationToken);
    }

    /// <summary>Puts a workflow without input on a queue.</summary>
    public Task<WorkflowHandle<TOut>> EnqueueAsync<TOut>(
        WorkflowQueue queue, Workflow<TOut> workflow, EnqueueOptions? options = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(workflow);
        return EnqueueCoreAsync<TOut>(queue, workflow.Name, _json.WriteInputs(), options, cancellationToken);
    }

    private async Task<WorkflowHandle<TOut>> EnqueueCoreAsync<TOut>(
        WorkflowQueue queue, string name, string inputs, EnqueueOptions? options, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(queue);
        options ??= new();
        InsertedWorkflow inserted = await _database.InsertAsync(options.ToNew(queue, name, inputs, options.Version ?? _engine?.ApplicationVersion))
            .WaitAsync(cancellationToken).ConfigureAwait(false);
        _engine?.Dispatcher.Wake();
        return new WorkflowHandle<TOut>(this, inserted.Id);
    }

    /// <summary>A handle to a workflow by id; it need not exist yet.</summary>
    public WorkflowHandle<TOut> Handle<TOut>(string workflowId) => new(this, workflowId);

    /// <summary>
    /// Cancels workflows durably: a running step learns it within a second, wherever it runs. Returns the ids that changed;
    /// ended ones do not.
    /// </summary>
    public async Task<IReadOnlyList<string>> CancelAsync(IReadOnlyCollection<string> workflowIds, CancellationToken cancellationToken = default)
    {
        List<string> changed = await _database.CancelAsync(workflowIds).WaitAsync(cancellationToken).ConfigureAwait(false);
        _engine?.CancelledHere(changed);
        return changed;
    }

    /// <summary>
    /// Puts cancelled, dead-lettered, or running workflows back on a queue; they go on from their recorded steps. Succeeded and failed
    /// ones stay as they are. Returns the ids that changed.
    /// </summary>
    public async Task<IReadOnlyList<string>> ResumeAsync(IReadOnlyCollection<string> workflowIds, WorkflowQueue? queue = null, CancellationToken cancellationToken = default)
    {
        List<string> changed = await _database.ResumeAsync(workflowIds, queue?.Name).WaitAsync(cancellationToken).ConfigureAwait(false);
        _engine?.Dispatcher.Wake();
        return changed;
    }

    /// <summary>Sends a message to a workflow. With a key, the same message is stored once.</summary>
    public async Task SendAsync<T>(string workflowId, T message, string? topic = null, string? idempotencyKey = null, CancellationToken cancellationToken = default)
    {
        string id = idempotencyKey is null ? Guid.CreateVersion7().ToString() : $"{idempotencyKey}::{workflowId}";
        string text = _json.Write(message);
        await _database.Writer.WriteAsync(workflowId, session =>
        {
            SystemDatabase.Send(session, workflowId, topic, text, id);
            return true;
        }, nudges: true).WaitAsync(cancellationToken).ConfigureAwait(false);
        _wakeups.Wake(Wakeups.Message(workflowId, topic));
    }

    /// <summary>The status of a workflow; null when there is none.</summary>
    public ValueTask<WorkflowStatus?> StatusAsync(string workflowId, CancellationToken cancellationToken = default) =>
        _database.ReadAsync(session => SystemDatabase.Status(session, workflowId), cancellationToken);

    /// <summary>Lists workflows, oldest first.</summary>
    public async ValueTask<IReadOnlyList<WorkflowStatus>> ListAsync(WorkflowFilter? filter = null, CancellationToken cancellationToken = default) =>
        await _database.ReadAsync(session => SystemDatabase.List(session, filter ?? new()), cancellationToken).ConfigureAwait(false);

    /// <summary>The recorded steps of a workflow.</summary>
    public async ValueTask<IReadOnlyList<StepStatus>> StepsAsync(string workflowId, CancellationToken cancellationToken = default) =>
        await _database.ReadAsync(session => SystemDatabase.Steps(session, workflowId), cancellationToken).ConfigureAwait(false);

    /// <summary>Reads the database on a reader session.</summary>
    public ValueTask<T> ReadAsync<T>(Func<SqlSession, T> work, CancellationToken cancellationToken = default) => _database.ReadAsync(work, cancellationToken);

    /// <summary>Runs a transaction of the program's own on the system database, outside any workflow. Not repeated after it committed.</summary>
    public async Task<T> TransactAsync<T>(Func<WorkflowTransaction, T> work, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(work);
        string sender = Guid.CreateVersion7().ToString();
        try
        {
            T result = await _database.Writer.TransactAsync("", session =>
                work(new WorkflowTransaction(session, _database, _json, _engine?.ApplicationVersion, sender, _engine?.Services ?? EmptyServices.Instance))).WaitAsync(cancellationToken).ConfigureAwait(false);
            _engine?.Dispatcher.Wake();
            _wakeups.WakeAll();
            return result;
        }
        catch (Exception e) when (e is System.Data.Common.DbException)
        {
            throw new DroverException(ErrorCode.Database, $"the database {_database.Dialect.Location} answered: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }

    internal async Task<TOut> ResultAsync<TOut>(string workflowId, CancellationToken cancellationToken)
    {
        string id = workflowId;
        while (true)
        {
            WorkflowStatus status = await EndAsync(id, cancellationToken).ConfigureAwait(false);
            switch (status.State)
            {
                case WorkflowState.Success when status.ContinuedAs is { } next:
                    id = next;
                    continue;
                case WorkflowState.Success:
                    return _json.Read<TOut>(status.Output)!;
                case WorkflowState.Cancelled:
                    throw new DroverException(ErrorCode.Cancelled, $"the awaited workflow {id} was cancelled");
                case WorkflowState.MaxRecoveryAttemptsExceeded:
                    throw new DroverException(ErrorCode.DeadLettered, $"the awaited workflow {id} is in the dead-letter state: see its steps, then resume or cancel it");
                default:
                    ErrorPayload error = PortableJson.ReadError(status.Error ?? "{}");
                    throw new WorkflowFailedException(id, error.Name, error.Message,
                        Enum.TryParse(error.Code, out ErrorCode code) ? code : ErrorCode.Failed);
            }
        }
    }

    private async Task<WorkflowStatus> EndAsync(string id, CancellationToken cancellationToken)
    {
        using Wakeups.Registration registration = _wakeups.Register(Wakeups.Result(id));
        _database.Writer.WatchClosely = true;
        // What runs here wakes us when it ends; a look before that would find it running.
        bool look = _engine is null || !_engine.IsRunning(id);
        while (true)
        {
            Task signal = registration.Next;
            if (look && await IsEndedAsync(id, cancellationToken).ConfigureAwait(false)
                && await StatusAsync(id, cancellationToken).ConfigureAwait(false) is { IsEnded: true } status)
            {
                return status;
            }
            look = true;
            try
            {
                await signal.WaitAsync(SafetyNet, _time, cancellationToken).ConfigureAwait(false);
            }
            catch (TimeoutException)
            {
                // The safety net: look again.
            }
        }
    }

    private ValueTask<bool> IsEndedAsync(string id, CancellationToken cancellationToken) => _database.ReadAsync(session => session.Text(
        "SELECT status FROM {p}workflow_status WHERE workflow_uuid = @id", ("@id", id)) is "SUCCESS" or "ERROR" or "CANCELLED" or "MAX_RECOVERY_ATTEMPTS_EXCEEDED", cancellationToken);

    /// <summary>Closes a client that was opened by <see cref="ConnectAsync"/>; an engine closes its own.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_engine is not null)
            return;
        _nudges?.Dispose();
        await _database.DisposeAsync().ConfigureAwait(false);
    }
}

/// <summary>A client without an engine has no services.</summary>
internal sealed class EmptyServices : IServiceProvider
{
    public static readonly EmptyServices Instance = new();

    public object? GetService(Type serviceType) => null;
}

/// <summary>A workflow that was started or enqueued, or is known by id.</summary>
public sealed class WorkflowHandle<TOut>
{
    private readonly WorkflowClient _client;

    internal WorkflowHandle(WorkflowClient client, string id) => (_client, Id) = (client, id);

    /// <summary>The workflow's id.</summary>
    public string Id { get; }

    /// <summary>
    /// Waits for the result. Cancelling the token ends this wait, never the workflow.
    /// </summary>
    /// <exception cref="WorkflowFailedException">The workflow failed.</exception>
    /// <exception cref="DroverException">It was cancelled or dead-lettered.</exception>
    public Task<TOut> ResultAsync(CancellationToken cancellationToken = default) => _client.ResultAsync<TOut>(Id, cancellationToken);

    /// <summary>The present status; null when the workflow does not exist.</summary>
    public ValueTask<WorkflowStatus?> StatusAsync(CancellationToken cancellationToken = default) => _client.StatusAsync(Id, cancellationToken);
}

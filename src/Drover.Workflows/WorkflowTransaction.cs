using Drover.Workflows.Serialization;
using Drover.Workflows.Storage;

namespace Drover.Workflows;

/// <summary>
/// A transaction of the system database: what is written through it commits together, or not at all. At most 5 s; runs alone
/// between batches, so it holds everybody up.
/// </summary>
public sealed class WorkflowTransaction
{
    private readonly SystemDatabase _database;
    private readonly PortableJson _json;
    private readonly string? _version;
    private readonly string _sender;
    private readonly string? _workflowId;
    private int _sends;

    internal WorkflowTransaction(SqlSession session, SystemDatabase database, PortableJson json, string? version, string sender, IServiceProvider services, string? workflowId = null) =>
        (Session, _database, _json, _version, _sender, Services, _workflowId) = (session, database, json, version, sender, services, workflowId);

    /// <summary>The session, for reading and writing the program's own tables in the same database.</summary>
    public SqlSession Session { get; }

    /// <summary>The program's services, as in a step.</summary>
    public IServiceProvider Services { get; }

    /// <summary>Now, in milliseconds since the Unix epoch.</summary>
    public long NowMs => Session.NowMs;

    /// <summary>Enqueues a workflow when this transaction commits. Returns its id, or the id of the one that holds the deduplication id.</summary>
    public string Enqueue<TIn, TOut>(WorkflowQueue queue, Workflow<TIn, TOut> workflow, TIn input, EnqueueOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(queue);
        ArgumentNullException.ThrowIfNull(workflow);
        options ??= new();
        return _database.Insert(Session, options.ToNew(queue, workflow.Name, _json.WriteInputs(_json.Write(input)), options.Version ?? _version)).Id;
    }

    /// <summary>Sends a message when this transaction commits. With a key, the same message is stored once.</summary>
    public void Send<T>(string workflowId, T message, string? topic = null, string? idempotencyKey = null)
    {
        string id = idempotencyKey is null ? $"{_sender}:{_sends++}::{workflowId}" : $"{idempotencyKey}::{workflowId}";
        SystemDatabase.Send(Session, workflowId, topic, _json.Write(message), id);
    }

    /// <summary>Cancels workflows when this transaction commits; returns the ids that changed.</summary>
    public IReadOnlyList<string> Cancel(params IReadOnlyCollection<string> workflowIds) => SystemDatabase.Cancel(Session, workflowIds);

    /// <summary>
    /// Lets go of the deduplication id that this workflow holds, when this transaction commits: a later enqueue with that id
    /// starts a new workflow although this one has not ended yet. Only inside a workflow.
    /// </summary>
    public void LetGoOfDeduplicationId()
    {
        if (_workflowId is null)
            throw new DroverException(ErrorCode.IllegalCall, "only a workflow's own transaction can let go of its deduplication id");
        Session.Execute("UPDATE {p}workflow_status SET deduplication_id = NULL WHERE workflow_uuid = @id", ("@id", _workflowId));
    }

    /// <summary>The status of a workflow as this transaction sees it; null when there is none.</summary>
    public WorkflowStatus? Status(string workflowId) => SystemDatabase.Status(Session, workflowId);
}

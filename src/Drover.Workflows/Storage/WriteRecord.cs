namespace Drover.Workflows.Storage;

/// <summary>What became of a fenced record.</summary>
internal enum RecordFate
{
    /// <summary>Committed.</summary>
    Done,
    /// <summary>The workflow was cancelled (by call or deadline); nothing was written.</summary>
    Cancelled,
    /// <summary>Another execution owns the workflow, or nobody does; nothing was written.</summary>
    Fenced,
    /// <summary>This execution's history already holds another result at this place: the body is not deterministic.</summary>
    Conflict,
}

/// <summary>
/// A group of rows committed together or not at all. Records of one key (a workflow id) are applied in the order in which
/// they were appended.
/// </summary>
internal abstract class WriteRecord(string key)
{
    /// <summary>The workflow the record belongs to: decides the shard.</summary>
    public string Key { get; } = key;

    /// <summary>True when other processes wait for such a change and should be nudged.</summary>
    public bool Nudges { get; init; }

    /// <summary>True when the record must have the transaction for itself.</summary>
    public virtual bool Exclusive => false;

    /// <summary>True when applying takes several statements of which a later one may fail.</summary>
    public virtual bool NeedsSavepoint => true;

    /// <summary>Why the record alone was refused; null when it was committed.</summary>
    public Exception? Failure { get; set; }

    /// <summary>Writes the rows. May run again when the transaction has to be repeated, so it changes nothing but its own fields.</summary>
    public abstract void Apply(WriterSession session);

    /// <summary>Hands the fate to whoever waits. Runs on the thread pool, never on the writer.</summary>
    public abstract void Complete();

    /// <summary>
    /// Answers instead of <see cref="Complete"/> while the writer may still be inside <see cref="Apply"/>: touches nothing that it touches.
    /// </summary>
    public abstract void Abandon(Exception error);
}

/// <summary>Any rows with any answer.</summary>
internal sealed class UnitRecord<T>(string key, Func<WriterSession, T> work, bool exclusive = false) : WriteRecord(key)
{
    private readonly TaskCompletionSource<T> _done = new();
    private T? _result;

    public Task<T> Task => _done.Task;

    public override bool Exclusive => exclusive;

    // An exclusive record has the whole transaction to undo.
    public override bool NeedsSavepoint => !exclusive;

    public override void Apply(WriterSession session) => _result = work(session);

    public override void Complete()
    {
        if (Failure is { } failure)
            _done.SetException(failure);
        else
            _done.SetResult(_result!);
    }

    public override void Abandon(Exception error) => ThreadPool.UnsafeQueueUserWorkItem(
        static w => w.Done.SetException(w.Error), (Done: _done, Error: error), preferLocal: false);
}

/// <summary>One step's result or error, under the workflow's fence.</summary>
internal sealed class StepRecord(string workflowId, string token) : WriteRecord(workflowId)
{
    private readonly TaskCompletionSource<RecordFate> _done = new();

    public required int StepId { get; init; }
    public required string Name { get; init; }
    public string? Output { get; init; }
    public string? Error { get; init; }
    public string? ChildId { get; init; }
    public long StartedAt { get; init; }
    public long CompletedAt { get; init; }
    public string? ApplicationName { get; init; }

    public RecordFate Fate { get; private set; }

    public Task<RecordFate> Task => _done.Task;

    public override bool NeedsSavepoint => false;

    public override void Apply(WriterSession session) => Fate = StepRows.Insert(session, Key, token, this);

    public override void Complete()
    {
        if (Failure is { } failure)
            _done.SetException(failure);
        else
            _done.SetResult(Fate);
    }

    public override void Abandon(Exception error) => ThreadPool.UnsafeQueueUserWorkItem(
        static w => w.Done.SetException(w.Error), (Done: _done, Error: error), preferLocal: false);
}

namespace Drover.Workflows.Execution;

/// <summary>
/// One call of the body that has a step id: from the call until its result is handed to the body. The chain of
/// predecessors in program order tells which branch a call belongs to.
/// </summary>
internal abstract class Checkpoint
{
    public required string Name { get; init; }
    public int Id { get; set; }
    public Checkpoint? Predecessor { get; set; }
    public CheckpointGroup Group { get; set; } = null!;

    /// <summary>The latest checkpoint that was called from the same place in program order.</summary>
    public Checkpoint? LastFollower { get; set; }

    public bool Delivered { get; set; }

    public string Label => $"step {Id} ({Name})";

    /// <summary>Hands the result to the body; runs inside a turn.</summary>
    public abstract void Complete();

    /// <summary>Replaces the result by an error.</summary>
    public abstract void Refuse(Exception error);

    public bool IsAncestorOf(Checkpoint other)
    {
        for (Checkpoint? c = other; c is not null; c = c.Predecessor)
        {
            if (ReferenceEquals(c, this))
                return true;
        }
        return false;
    }
}

/// <summary>Checkpoints that were outstanding together, and the one branch among them that went on.</summary>
internal sealed class CheckpointGroup
{
    public int Members { get; set; }
    public Checkpoint? Continued { get; set; }
    public Checkpoint? ContinuedBy { get; set; }
}

internal sealed class Checkpoint<T> : Checkpoint
{
    private readonly TaskCompletionSource<T> _result = new();
    private Func<T>? _read;
    private T? _value;
    private Exception? _error;

    public Task<T> Task => _result.Task;

    public void Set(T value) => _value = value;

    /// <summary>A recorded result, read when it is handed over.</summary>
    public void SetRecorded(Func<T> read) => _read = read;

    public override void Refuse(Exception error) => _error ??= error;

    public override void Complete()
    {
        Delivered = true;
        if (_error is null && _read is not null)
        {
            try
            {
                _value = _read();
            }
            catch (Exception e) when (e is System.Text.Json.JsonException or DroverException)
            {
                _error = e as DroverException
                    ?? new DroverException(ErrorCode.NonDeterminism, $"the recorded result of {Label} does not fit its type {typeof(T).Name}: {e.Message}", e);
            }
        }
        if (_error is not null)
            _result.TrySetException(_error);
        else
            _result.TrySetResult(_value!);
    }
}

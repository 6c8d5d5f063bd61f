using System.Collections.Concurrent;

namespace Drover.Workflows.Execution;

/// <summary>
/// Who waits for what in this process. A signal is a hint to look again: waiters re-read the database and never trust it.
/// </summary>
internal sealed class Wakeups
{
    private readonly ConcurrentDictionary<string, Signal> _signals = new(StringComparer.Ordinal);

    /// <summary>True while anybody waits.</summary>
    public bool HasWaiters => !_signals.IsEmpty;

    public static string Result(string workflowId) => "result:" + workflowId;

    public static string Message(string workflowId, string? topic) => $"message:{workflowId}::{topic}";

    /// <summary>Registers before the first look, so that nothing between the look and the wait is missed.</summary>
    public Registration Register(string key)
    {
        while (true)
        {
            Signal signal = _signals.GetOrAdd(key, static k => new Signal(k));
            lock (signal)
            {
                if (signal.Gone)
                    continue;
                signal.Waiters++;
                return new Registration(this, signal);
            }
        }
    }

    public void Wake(string key)
    {
        if (_signals.TryGetValue(key, out Signal? signal))
            signal.Pulse();
    }

    public void WakeAll()
    {
        foreach (Signal signal in _signals.Values)
            signal.Pulse();
    }

    internal sealed class Signal(string key)
    {
        private TaskCompletionSource _next = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public string Key => key;
        public int Waiters { get; set; }
        public bool Gone { get; set; }

        public Task Next => Volatile.Read(ref _next).Task;

        public void Pulse() =>
            Interlocked.Exchange(ref _next, new(TaskCreationOptions.RunContinuationsAsynchronously)).SetResult();
    }

    internal readonly struct Registration(Wakeups owner, Signal signal) : IDisposable
    {
        /// <summary>Completes at the next signal. Take it before looking.</summary>
        public Task Next => signal.Next;

        public void Dispose()
        {
            lock (signal)
            {
                if (--signal.Waiters > 0)
                    return;
                signal.Gone = true;
            }
            owner._signals.TryRemove(signal.Key, out _);
        }
    }
}

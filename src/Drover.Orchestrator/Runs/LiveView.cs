using System.Collections.Concurrent;
using Drover.Orchestrator.CodingAgents;

namespace Drover.Orchestrator.Runs;

/// <summary>A worker as a terminal shows it. The text is sanitized.</summary>
/// <param name="Task">The task.</param>
/// <param name="Attempt">Its attempt.</param>
/// <param name="Agent">The agent's type.</param>
/// <param name="Phase">What it does now: worktree, agent, commit, testing, landing.</param>
/// <param name="LastLine">The last thing it said.</param>
/// <param name="Since">When the attempt began in this process, by <see cref="TimeProvider.GetTimestamp"/>.</param>
public sealed record WorkerView(string Task, int Attempt, string Agent, string Phase, string LastLine, long Since);

/// <summary>What runs in this process at this moment. Only for eyes: nothing is decided from it.</summary>
internal sealed class LiveView(TimeProvider time)
{
    private readonly ConcurrentDictionary<(string Task, int Attempt), WorkerView> _workers = new();

    public IReadOnlyList<WorkerView> Workers => [.. _workers.Values.OrderBy(w => w.Since)];

    public void Begin(string task, int attempt, string agent) =>
        _workers[(task, attempt)] = new WorkerView(task, attempt, agent, "", "", time.GetTimestamp());

    public void Note(string task, int attempt, string phase, string text)
    {
        if (_workers.TryGetValue((task, attempt), out WorkerView? worker))
            _workers[(task, attempt)] = worker with { Phase = phase, LastLine = TerminalText.SanitizeLine(text, 200) };
    }

    public void Line(string task, int attempt, string text)
    {
        if (_workers.TryGetValue((task, attempt), out WorkerView? worker) && !string.IsNullOrWhiteSpace(text))
            _workers[(task, attempt)] = worker with { LastLine = TerminalText.SanitizeLine(text, 200) };
    }

    /// <summary>The task is nobody's work any more, however it ended.</summary>
    public void EndAll(string task)
    {
        foreach ((string Task, int Attempt) key in _workers.Keys.Where(k => k.Task == task))
            _workers.TryRemove(key, out _);
    }
}

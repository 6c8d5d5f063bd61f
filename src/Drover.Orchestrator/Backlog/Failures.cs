namespace Drover.Orchestrator.Backlog;

/// <summary>How an attempt failed; decides whether another attempt makes sense and how long it waits.</summary>
public enum FailureKind
{
    /// <summary>The agent said so, or exited with an error.</summary>
    Agent,
    /// <summary>The agent exceeded a clock (start, silence or total).</summary>
    Timeout,
    /// <summary>The gate stayed red.</summary>
    Gate,
    /// <summary>The agent ended without a change and without a reason.</summary>
    Empty,
    /// <summary>An outside program or the machine failed (git, file system, process start).</summary>
    Environment,
    /// <summary>Something that the same input will always meet again.</summary>
    Permanent,
}

/// <summary>The classification of failures: retry or not, and the backoff.</summary>
public static class Failures
{
    private const long CapMs = 5 * 60 * 1000;

    /// <summary>True when another attempt may do better.</summary>
    public static bool Retryable(FailureKind kind) => kind != FailureKind.Permanent;

    /// <summary>The stored word.</summary>
    public static string Word(FailureKind kind) => kind.ToString().ToLowerInvariant();

    /// <summary>
    /// Milliseconds to wait before the next attempt: doubles with each counted attempt, capped at five minutes, spread by up to
    /// ±20 % so that tasks which failed together do not return together. The spread comes from task and attempt, so a repeated
    /// transaction computes the same value.
    /// </summary>
    public static long BackoffMs(FailureKind kind, int consumed, string task, int attempt)
    {
        ArgumentNullException.ThrowIfNull(task);
        long first = kind == FailureKind.Environment ? 5_000 : 1_000;
        long wait = Math.Min(CapMs, first << Math.Clamp(consumed - 1, 0, 16));
        uint hash = 2166136261;
        foreach (char c in task)
            hash = (hash ^ c) * 16777619;
        hash = (hash ^ (uint)attempt) * 16777619;
        return wait * (80 + (hash >> 8) % 41) / 100;
    }
}

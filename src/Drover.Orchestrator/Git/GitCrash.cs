namespace Drover.Orchestrator.Git;

/// <summary>
/// Named instants between the numbered steps of an operation. Tests set <see cref="Hook"/> to stop there as a kill would;
/// nothing may clean up between a point and the caller, so no operation of this room relies on finally blocks for correctness.
/// </summary>
internal static class GitCrash
{
    private static readonly AsyncLocal<Action<string>?> Current = new();

    /// <summary>Called at every point of the present flow; null (always, outside tests) does nothing.</summary>
    public static Action<string>? Hook
    {
        get => Current.Value;
        set => Current.Value = value;
    }

    public static void Point(string name) => Current.Value?.Invoke(name);
}

/// <summary>Thrown by a test's hook. Operations let it pass without cleaning anything, as a SIGKILL would.</summary>
internal sealed class GitCrashException(string point) : Exception(point);

using System.Diagnostics;

namespace Drover.Workflows.Diagnostics;

/// <summary>
/// Numbered places at which a test can end the process as <c>kill -9</c> would. Set <c>DROVER_CRASH_POINT=name</c> or
/// <c>name#n</c> (the n-th time the place is reached); unset, each place costs one comparison.
/// </summary>
public static class CrashPoints
{
    private static readonly string? Name;
    private static int s_remaining;

    static CrashPoints()
    {
        string? wanted = Environment.GetEnvironmentVariable("DROVER_CRASH_POINT");
        if (string.IsNullOrEmpty(wanted))
            return;
        int hash = wanted.IndexOf('#', StringComparison.Ordinal);
        Name = hash < 0 ? wanted : wanted[..hash];
        s_remaining = hash < 0 ? 1 : int.Parse(wanted.AsSpan(hash + 1), System.Globalization.CultureInfo.InvariantCulture);
    }

    /// <summary>Ends the process here when a test asked for it.</summary>
    public static void Reach(string name)
    {
        if (Name is not null && Name == name && Interlocked.Decrement(ref s_remaining) == 0)
            Die();
    }

    private static void Die()
    {
        // SIGKILL to ourselves: no finally block, no flush, no exit handler runs.
        using var self = Process.GetCurrentProcess();
        self.Kill();
        using var never = new ManualResetEventSlim(false);
        never.Wait();
    }
}

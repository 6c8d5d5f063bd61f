using System.Diagnostics;

namespace Drover.TestKit;

/// <summary>Waits for a condition with a generous bound. The only place in the tests that polls.</summary>
public static class Eventually
{
    public static readonly TimeSpan Bound = TimeSpan.FromSeconds(60);

    public static Task TrueAsync(Func<bool> condition, string what, TimeSpan? bound = null) =>
        TrueAsync(() => Task.FromResult(condition()), what, bound);

    public static async Task TrueAsync(Func<Task<bool>> condition, string what, TimeSpan? bound = null)
    {
        var watch = Stopwatch.StartNew();
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(10));
        while (!await condition())
        {
            if (watch.Elapsed > (bound ?? Bound))
                throw new TimeoutException($"did not happen within {(bound ?? Bound).TotalSeconds:0} s: {what}");
            await timer.WaitForNextTickAsync();
        }
    }
}

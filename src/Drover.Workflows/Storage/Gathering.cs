namespace Drover.Workflows.Storage;

/// <summary>
/// The acknowledgements of one batch, taken one by one by two pool threads. A continuation may block its thread (a step body that
/// never yields): after the bound every record that is left gets a work item of its own, so none waits for another.
/// </summary>
internal sealed class Gathering(WriteRecord[] records)
{
    private const int GatherMs = 1;

    private readonly ManualResetEventSlim _done = new(false, spinCount: 100);
    private int _next = -1;
    private int _left = records.Length;

    public void Drain()
    {
        for (int i; (i = Interlocked.Increment(ref _next)) < records.Length;)
            CompleteOne(i);
    }

    public void Wait()
    {
        if (!_done.Wait(GatherMs))
            Scatter();
    }

    /// <summary>Does not wait; looks again after a moment in case a continuation blocks.</summary>
    public void WatchOver() => ThreadPool.RegisterWaitForSingleObject(_done.WaitHandle, static (state, timedOut) =>
    {
        if (timedOut)
            ((Gathering)state!).Scatter();
    }, this, 20, executeOnlyOnce: true);

    private void Scatter()
    {
        for (int i; (i = Interlocked.Increment(ref _next)) < records.Length;)
            ThreadPool.UnsafeQueueUserWorkItem(static w => w.Gathering.CompleteOne(w.Index), (Gathering: this, Index: i), preferLocal: false);
    }

    private void CompleteOne(int index)
    {
        records[index].Complete();
        if (Interlocked.Decrement(ref _left) == 0)
            _done.Set();
    }
}

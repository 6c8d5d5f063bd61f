using Drover.Workflows.Diagnostics;
using Microsoft.Extensions.Logging;

namespace Drover.Workflows.Storage;

/// <summary>
/// Group commit. One thread takes whatever waits and commits it as one transaction: idle, it commits at once; busy, the batch
/// grows. There is no timer. A record is acknowledged only after its commit.
/// <para>Crash points: writer.1 batch taken · 2 transaction begun · 3 rows written · 4 committed · 5 acknowledged.</para>
/// </summary>
internal sealed class CheckpointWriter : IAsyncDisposable
{
    // Larger batches gained 13-26 % in the prototype but enlarge the blast radius of a bad record.
    private const int MaxBatch = 256;
    private const int BusyPollMs = 20;
    private const int IdlePollMs = 250;
    private const int GatherMs = 1;
    private static readonly TimeSpan TransactionLimit = TimeSpan.FromSeconds(5);

    // Flows into tasks that the work starts, so that waiting for an engine call there is refused instead of deadlocking the writer.
    private static readonly AsyncLocal<OpenTransaction?> Transaction = new();

    private readonly SqlDialect _dialect;
    private readonly TimeProvider _time;
    private readonly ILogger _log;
    private readonly Thread _thread;
    private readonly object _gate = new();
    private readonly TaskCompletionSource _stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private List<WriteRecord> _inbox = [];
    private List<WriteRecord> _spare = [];
    private bool _stopping;
    private Exception? _openFailure;
    private Action? _foreignCommit;

    public CheckpointWriter(SqlDialect dialect, TimeProvider time, ILogger log)
    {
        (_dialect, _time, _log) = (dialect, time, log);
        _thread = new Thread(Run) { IsBackground = true, Name = "drover writer" };
        _thread.Start();
    }

    /// <summary>Transactions committed so far; for tests and the meter.</summary>
    public long Commits { get; private set; }

    /// <summary>Records committed so far.</summary>
    public long Records { get; private set; }

    /// <summary>True while something waits for another process's commit: the foreign-commit check runs every 20 ms instead of 250.</summary>
    public volatile bool WatchClosely;

    /// <summary>Calls <paramref name="onForeignCommit"/> from the writer thread when another process has committed.</summary>
    public void OnForeignCommit(Action onForeignCommit)
    {
        lock (_gate)
        {
            _foreignCommit = onForeignCommit;
            Monitor.Pulse(_gate);
        }
    }

    /// <summary>Hands a record over. It completes after its commit, on the thread pool.</summary>
    public void Append(WriteRecord record)
    {
        if (Transaction.Value is { Closed: false })
            throw new DroverException(ErrorCode.IllegalCall, "engine calls inside a transaction go through its handle (tx.Enqueue, tx.Send, …)");
        lock (_gate)
        {
            if (_stopping || _openFailure is not null)
            {
                throw _openFailure as DroverException
                    ?? new DroverException(ErrorCode.Unavailable, "the engine has stopped: nothing more can be recorded", _openFailure);
            }
            _inbox.Add(record);
            if (_inbox.Count == 1)
                Monitor.Pulse(_gate);
        }
    }

    /// <summary>Runs work in a record and returns its answer.</summary>
    public Task<T> WriteAsync<T>(string key, Func<WriterSession, T> work, bool nudges = false)
    {
        var record = new UnitRecord<T>(key, work) { Nudges = nudges };
        Append(record);
        return record.Task;
    }

    /// <summary>
    /// Runs work alone between batches, in a transaction of its own of at most 5 s. When it throws, or takes longer,
    /// nothing of it remains.
    /// </summary>
    public Task<T> TransactAsync<T>(string key, Func<WriterSession, T> work)
    {
        var record = new UnitRecord<T>(key, session =>
        {
            long started = _time.GetTimestamp();
            var open = new OpenTransaction();
            Transaction.Value = open;
            try
            {
                T result = work(session);
                if (_time.GetElapsedTime(started) > TransactionLimit)
                {
                    throw new DroverException(ErrorCode.Timeout,
                        $"a transaction took longer than {TransactionLimit.TotalSeconds:0} s and was undone: move the slow part out of it");
                }
                return result;
            }
            finally
            {
                open.Closed = true;
                Transaction.Value = null;
            }
        }, exclusive: true) { Nudges = true };
        Append(record);
        return record.Task;
    }

    private void Run()
    {
        WriterSession session;
        try
        {
            session = _dialect.OpenWriter(_time);
        }
        catch (Exception e)
        {
            FailAll(e);
            _stopped.SetResult();
            return;
        }

        using (session)
        {
            while (Take(session) is { } batch)
            {
                CrashPoints.Reach("writer.1");
                CommitOrFail(session, batch);
                Acknowledge(batch);
                CrashPoints.Reach("writer.5");
                batch.Clear();
                _spare = batch;
            }
        }
        _stopped.SetResult();
    }

    private void FailAll(Exception e)
    {
        List<WriteRecord> waiting;
        lock (_gate)
        {
            _openFailure = e;
            waiting = _inbox;
            _inbox = [];
        }
        foreach (WriteRecord record in waiting)
            record.Failure = e;
        ThreadPool.UnsafeQueueUserWorkItem(static w => CompleteSlice(w, 0, w.Count), waiting, preferLocal: false);
    }

    // Returns what waits, in order; null when stopping and empty. Looks for foreign commits while idle.
    private List<WriteRecord>? Take(WriterSession session)
    {
        SpinForWork();
        while (true)
        {
            Action? signal = null;
            lock (_gate)
            {
                if (_inbox.Count == 0 && !_stopping)
                    Monitor.Wait(_gate, _foreignCommit is null ? Timeout.Infinite : WatchClosely ? BusyPollMs : IdlePollMs);
                if (_inbox.Count > 0)
                    return TakeLocked();
                if (_stopping)
                    return null;
                signal = _foreignCommit;
            }
            if (signal is not null)
                Look(session, signal);
        }
    }

    // The look is a convenience: when it fails, the next batch meets the same trouble and reports it to whoever waits.
    private void Look(WriterSession session, Action signal)
    {
        try
        {
            if (session.ForeignCommitSeen())
                signal();
        }
        catch (Exception e)
        {
            Log.LoopFailed(_log, e, "foreign commit");
        }
    }

    private void SpinForWork()
    {
        // A lone workflow comes back within some microseconds; waking a sleeping thread costs more than this spin.
        for (int i = 0; i < 40 && Volatile.Read(ref _inbox).Count == 0; i++)
            Thread.SpinWait(20);
    }

    private List<WriteRecord> TakeLocked()
    {
        List<WriteRecord> taken = _inbox;
        int exclusive = taken.FindIndex(r => r.Exclusive);
        int count = Math.Min(taken.Count, MaxBatch);
        if (exclusive >= 0)
            count = Math.Min(count, Math.Max(1, exclusive));
        _inbox = _spare;
        if (count < taken.Count)
        {
            _inbox.AddRange(taken.GetRange(count, taken.Count - count));
            taken.RemoveRange(count, taken.Count - count);
        }
        return taken;
    }

    // Nothing may end the writer's thread: an error that even undoing cannot survive is the answer to everybody in the batch.
    private void CommitOrFail(WriterSession session, List<WriteRecord> batch)
    {
        try
        {
            Commit(session, batch);
        }
        catch (Exception e)
        {
            Log.LoopFailed(_log, e, "writer");
            foreach (WriteRecord record in batch)
                record.Failure ??= e;
        }
    }

    // An error of one record never touches its neighbours; an unknown commit is run again, and records recognise their own rows.
    private void Commit(WriterSession session, List<WriteRecord> batch)
    {
        for (int attempt = 0; ; attempt++)
        {
            try
            {
                session.Begin();
                CrashPoints.Reach("writer.2");
                foreach (WriteRecord record in batch)
                    ApplyOne(session, record, alone: batch.Count == 1);
                CrashPoints.Reach("writer.3");
                session.Commit();
                CrashPoints.Reach("writer.4");
                Commits++;
                Records += batch.Count;
                return;
            }
            catch (Exception e)
            {
                session.Rollback();
                SqlErrorKind kind = _dialect.Classify(e);
                if (kind is SqlErrorKind.Transient or SqlErrorKind.DiskFull && !_stopping)
                {
                    if (attempt == 0 && kind == SqlErrorKind.DiskFull)
                        Log.DatabaseFull(_log, _dialect.Location);
                    PauseBeforeRetry(attempt);
                    continue;
                }
                if (batch.Count == 1)
                {
                    batch[0].Failure = e;
                    return;
                }
                foreach (WriteRecord record in batch)
                    Commit(session, [record]);
                return;
            }
        }
    }

    private void ApplyOne(WriterSession session, WriteRecord record, bool alone)
    {
        record.Failure = null;
        // Alone it has the whole transaction to undo.
        if (alone || !record.NeedsSavepoint)
        {
            record.Apply(session);
            return;
        }
        session.Execute("SAVEPOINT record");
        try
        {
            record.Apply(session);
            session.Execute("RELEASE record");
        }
        catch (Exception e) when (_dialect.Classify(e) is not (SqlErrorKind.Transient or SqlErrorKind.DiskFull))
        {
            session.Execute("ROLLBACK TO record");
            session.Execute("RELEASE record");
            record.Failure = e;
        }
    }

    private void PauseBeforeRetry(int attempt)
    {
        lock (_gate)
        {
            if (!_stopping)
                Monitor.Wait(_gate, Math.Min(1_000, 5 << Math.Min(attempt, 8)));
        }
    }

    // User code never runs on the writer: continuations go to the pool. The writer then waits, bounded, until they have run;
    // without it batches settle at half the callers, because half of them missed the last one.
    private void Acknowledge(List<WriteRecord> batch)
    {
        bool nudge = false;
        foreach (WriteRecord record in batch)
            nudge |= record.Nudges;
        if (batch.Count <= 4)
        {
            foreach (WriteRecord record in batch)
                ThreadPool.UnsafeQueueUserWorkItem(static r => r.Complete(), record, preferLocal: false);
            if (nudge)
                _dialect.Nudge();
            return;
        }
        var gathering = new Gathering([.. batch]);
        ThreadPool.UnsafeQueueUserWorkItem(static g => g.Drain(), gathering, preferLocal: false);
        ThreadPool.UnsafeQueueUserWorkItem(static g => g.Drain(), gathering, preferLocal: false);
        if (nudge)
            _dialect.Nudge();
        // When as many already wait, the others of a large crowd overlap with these: waiting would only idle the writer.
        if (Volatile.Read(ref _inbox).Count < batch.Count)
            gathering.Wait();
        else
            gathering.WatchOver();
    }

    // The acknowledgements of one batch, taken one by one by two pool threads. A continuation may block its thread (a step body
    // that never yields): after the bound every record that is left gets a work item of its own, so none waits for another.
    private sealed class Gathering(WriteRecord[] records)
    {
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

    private sealed class OpenTransaction
    {
        public volatile bool Closed;
    }

    private static void CompleteSlice(IReadOnlyList<WriteRecord> records, int from, int to)
    {
        for (int i = from; i < to; i++)
            records[i].Complete();
    }

    /// <summary>Commits what was appended, then ends the thread.</summary>
    public async ValueTask DisposeAsync()
    {
        lock (_gate)
        {
            _stopping = true;
            Monitor.PulseAll(_gate);
        }
        await _stopped.Task.ConfigureAwait(false);
    }
}

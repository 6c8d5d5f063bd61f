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
    private static readonly TimeSpan TransactionLimit = TimeSpan.FromSeconds(5);

    // Once a stop is asked for, a database that refuses or blocks gets this long. Real time, whatever clock the workflows see.
    private static readonly TimeSpan StopPatience = TimeSpan.FromSeconds(2);
    private static readonly TimeProvider StopClock = TimeProvider.System;

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

    // What the thread holds and has not answered. Whoever clears it answers it: the thread, or the watch over a stop.
    private List<WriteRecord>? _held;
    private Phase _phase;
    private long _phaseSince;
    private long _stopAsked;
    private bool _commitTried;
    private bool _gaveUp;
    private bool _abandoned;
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
            _stopped.TrySetResult();
            return;
        }

        using (session)
        {
            while (Take(session) is { } batch)
            {
                CrashPoints.Reach("writer.1");
                CommitOrFail(session, batch);
                if (!Settle())
                    break;
                Acknowledge(batch);
                CrashPoints.Reach("writer.5");
                batch.Clear();
                _spare = batch;
            }
        }
        _stopped.TrySetResult();
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
        (_held, _commitTried) = (taken, false);
        Set(Phase.Beginning);
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
        long since = StopClock.GetTimestamp();
        for (int attempt = 0; ; attempt++)
        {
            try
            {
                Enter(Phase.Beginning);
                session.Begin();
                Enter(Phase.Working);
                CrashPoints.Reach("writer.2");
                foreach (WriteRecord record in batch)
                    ApplyOne(session, record, alone: batch.Count == 1);
                CrashPoints.Reach("writer.3");
                Enter(Phase.Committing);
                session.Commit();
                CrashPoints.Reach("writer.4");
                Commits++;
                Records += batch.Count;
                _gaveUp = false;
                return;
            }
            catch (Exception e)
            {
                session.Rollback();
                if (Volatile.Read(ref _abandoned))
                    return;
                SqlErrorKind kind = _dialect.Classify(e);
                if (kind is SqlErrorKind.Transient or SqlErrorKind.DiskFull)
                {
                    if (attempt == 0 && kind == SqlErrorKind.DiskFull)
                        Log.DatabaseFull(_log, _dialect.Location);
                    if (MayRetry(since))
                    {
                        PauseBeforeRetry(attempt);
                        continue;
                    }
                    DroverException refused = Unavailable($"cannot be written ({e.Message.ReplaceLineEndings(" ")})", _commitTried, e);
                    foreach (WriteRecord record in batch)
                        record.Failure = refused;
                    return;
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
            Monitor.Wait(_gate, Math.Min(_stopAsked == 0 ? 1_000 : 100, 5 << Math.Min(attempt, 8)));
    }

    // ---- the bounds of a stop ------------------------------------------------------------------------------------------

    // Where the thread is with what it holds: decides how long a stop waits for it.
    private enum Phase
    {
        Beginning,
        Working,
        Committing,
    }

    private void Set(Phase phase) => (_phase, _phaseSince) = (phase, StopClock.GetTimestamp());

    // A batch that was answered without its commit is never committed afterwards: this is the last moment to know.
    private void Enter(Phase phase)
    {
        lock (_gate)
        {
            if (_abandoned)
                throw Unavailable("did not answer in time", unknown: false);
            _commitTried |= phase == Phase.Committing;
            Set(phase);
        }
    }

    // False when the watch over a stop has answered what the thread held.
    private bool Settle()
    {
        lock (_gate)
        {
            _held = null;
            return !_abandoned;
        }
    }

    // After one batch has used the patience of a stop, later ones get one attempt each: the stop as a whole is bounded.
    private bool MayRetry(long since)
    {
        lock (_gate)
        {
            if (_stopAsked == 0)
                return true;
            _gaveUp |= StopClock.GetElapsedTime(Math.Max(since, _stopAsked)) >= StopPatience;
            return !_gaveUp;
        }
    }

    private DroverException Unavailable(string what, bool unknown, Exception? inner = null) => new(ErrorCode.Unavailable,
        $"the engine stops and the database {_dialect.Location} {what}: "
        + (unknown ? "whether this was recorded is not known, the next start finds out" : "this was not recorded, the next start goes on from what was"), inner);

    /// <summary>
    /// From now on a record that cannot be written fails with <see cref="ErrorCode.Unavailable"/> instead of waiting for the database to
    /// recover: after 2 s, or after the 5 s of a transaction when the thread itself is blocked inside one. The writer still takes records.
    /// </summary>
    public void BoundWaits()
    {
        lock (_gate)
        {
            if (_stopAsked != 0)
                return;
            _stopAsked = StopClock.GetTimestamp();
            Monitor.PulseAll(_gate);
        }
        _ = WatchStopAsync();
    }

    // The thread may be blocked where nothing wakes it: another process holds the commit lock and is stopped, a transaction's body
    // waits for something, the disk does not answer.
    private async Task WatchStopAsync()
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(100), StopClock);
        while (!_stopped.Task.IsCompleted && await timer.WaitForNextTickAsync().ConfigureAwait(false))
            AbandonIfBlocked();
    }

    private void AbandonIfBlocked()
    {
        List<WriteRecord> held, waiting;
        bool unknown;
        lock (_gate)
        {
            TimeSpan patience = _phase == Phase.Beginning ? StopPatience : TransactionLimit;
            if (_held is null || StopClock.GetElapsedTime(Math.Max(_phaseSince, _stopAsked)) < patience)
                return;
            _abandoned = _stopping = true;
            unknown = _commitTried;
            (held, _held) = ([.. _held], null);
            (waiting, _inbox) = (_inbox, []);
        }
        DroverException error = Unavailable("did not answer in time", unknown);
        Log.WriterAbandoned(_log, held.Count + waiting.Count, _dialect.Location);
        foreach (WriteRecord record in held)
            record.Abandon(error);
        DroverException notBegun = Unavailable("did not answer in time", unknown: false);
        foreach (WriteRecord record in waiting)
            record.Abandon(notBegun);
        _stopped.TrySetResult();
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

    private sealed class OpenTransaction
    {
        public volatile bool Closed;
    }

    private static void CompleteSlice(IReadOnlyList<WriteRecord> records, int from, int to)
    {
        for (int i = from; i < to; i++)
            records[i].Complete();
    }

    /// <summary>
    /// Commits what was appended, then ends the thread. Bounded by <see cref="BoundWaits"/>: a thread that stays blocked is left behind;
    /// it can commit nothing more and ends when it wakes.
    /// </summary>
    public async ValueTask DisposeAsync()
    {
        BoundWaits();
        lock (_gate)
        {
            _stopping = true;
            Monitor.PulseAll(_gate);
        }
        await _stopped.Task.ConfigureAwait(false);
    }
}

using Drover.Workflows.Storage;
using Microsoft.Data.Sqlite;
using SQLitePCL;

namespace Drover.Workflows.Sqlite;

/// <summary>
/// The connection of the one writer thread. Every commit and every checkpoint of every process is made under one OS file
/// lock beside the database: SQLite below 3.51.3 can corrupt the file when two connections commit and checkpoint at once.
/// </summary>
internal sealed class SqliteWriterSession : WriterSession
{
    // 4,000 pages: measured 15-40 % quicker than the default of 1,000, and still small to replay.
    private const int CheckpointFrames = 4_000;
    private const int TruncateFrames = 16_000;

    // When a reader still needs old pages the log goes on growing: the next attempt is worth its syncs only some pages later.
    private const int RetryFrames = 1_000;

    private readonly sqlite3 _handle;
    private readonly FileLock _commitLock;
    private readonly WalLength _wal;
    private readonly RawStatements _statements;
    private readonly Func<string, string> _expand;
    private int _framesBefore;
    private int _nextCheckpoint = CheckpointFrames;
    private bool _inTransaction;
    private long _dataVersion = -1;

    public SqliteWriterSession(SqliteConnection connection, SqliteDialect dialect, TimeProvider time, FileLock commitLock)
        : base(connection, dialect, time)
    {
        _handle = connection.Handle!;
        _commitLock = commitLock;
        _wal = new WalLength(_handle);
        _statements = new RawStatements(_handle);
        _expand = dialect.Expand;
    }

    /// <inheritdoc/>
    public override int Execute(string sql, params ReadOnlySpan<(string Name, object? Value)> args) =>
        _statements.TryExecute(sql, _expand, args, NowMs, out int rows) ? rows : base.Execute(sql, args);

    /// <inheritdoc/>
    public override long Number(string sql, params ReadOnlySpan<(string Name, object? Value)> args) =>
        _statements.TryNumber(sql, _expand, args, NowMs, out long number) ? number : base.Number(sql, args);

    protected internal override void Begin()
    {
        _commitLock.Take();
        try
        {
            Execute("BEGIN IMMEDIATE");
            _inTransaction = true;
        }
        catch
        {
            _commitLock.Release();
            throw;
        }
    }

    protected internal override bool InTransaction => raw.sqlite3_get_autocommit(_handle) == 0;

    protected internal override void Commit()
    {
        Execute("COMMIT");
        _inTransaction = false;
        try
        {
            Checkpoint();
        }
        finally
        {
            _commitLock.Release();
        }
    }

    protected internal override void Rollback()
    {
        if (!_inTransaction)
            return;
        _inTransaction = false;
        try
        {
            // A full disk or an I/O error may have rolled back already; then autocommit is on again.
            if (raw.sqlite3_get_autocommit(_handle) == 0)
                Execute("ROLLBACK");
        }
        finally
        {
            _commitLock.Release();
        }
    }

    protected internal override bool ForeignCommitSeen()
    {
        long version = Number("PRAGMA data_version");
        bool changed = version != _dataVersion && _dataVersion >= 0;
        _dataVersion = version;
        return changed;
    }

    // Called with the commit lock held; automatic checkpoints are off on every connection.
    private void Checkpoint()
    {
        int frames = _wal.Frames;
        if (frames < _framesBefore)
            _nextCheckpoint = CheckpointFrames;
        _framesBefore = frames;
        if (frames < _nextCheckpoint)
            return;
        int mode = frames > TruncateFrames ? raw.SQLITE_CHECKPOINT_TRUNCATE : raw.SQLITE_CHECKPOINT_PASSIVE;
        _ = raw.sqlite3_wal_checkpoint_v2(_handle, "main", mode, out _, out _);
        _nextCheckpoint = frames + RetryFrames;
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            Rollback();
            _statements.Dispose();
            _wal.Dispose();
            base.Dispose(disposing);
            _commitLock.Dispose();
            return;
        }
        base.Dispose(disposing);
    }
}

using System.Collections.Concurrent;
using System.Reflection;
using System.Text.Json;
using Drover.Workflows.Storage;
using Microsoft.Data.Sqlite;
using SQLitePCL;

namespace Drover.Workflows.Sqlite;

/// <summary>SQLite: one file, WAL, <c>synchronous=FULL</c>, one writer thread per process, any number of processes of one machine.</summary>
public sealed class SqliteDialect : SqlDialect
{
    // 'DROV': a file with another id belongs to another program.
    private const int ApplicationId = 0x44524F56;
    private const int NoCheckpointOnClose = 1006;

    private static readonly IReadOnlyList<string> Scripts = [ReadScript("001-dbos-schema-123.sql")];

    private readonly ConcurrentBag<SqlSession> _readers = [];
    private readonly NudgeSocket _nudges;
    // The connection that prepared the file serves the first reader: the first to open a file that nobody has open rebuilds the index
    // of its journal, and a command that only looks would pay for that twice.
    private SqliteConnection? _prepared;
    private bool _disposed;

    /// <summary>Opens or creates the database file.</summary>
    /// <param name="path">Path of the file; its folder must exist.</param>
    /// <param name="create">False refuses a missing file instead of creating it.</param>
    /// <exception cref="DroverException">The file cannot be opened or belongs to another program.</exception>
    public SqliteDialect(string path, bool create = true)
    {
        Path = System.IO.Path.GetFullPath(path);
        NativeLibraryChoice.Initialize();
        if (!create && !File.Exists(Path))
            throw new DroverException(ErrorCode.NotFound, $"there is no database {Path}: run `drover init`");
        Guarded(Prepare);
        _nudges = new NudgeSocket(Path);
    }

    /// <summary>The database file's absolute path.</summary>
    public string Path { get; }

    /// <inheritdoc/>
    public override string Name => "SQLite";

    /// <inheritdoc/>
    public override string Location => Path;

    /// <inheritdoc/>
    protected override string TablePrefix => "";

    /// <inheritdoc/>
    protected override string OwnPrefix => "drover_";

    /// <inheritdoc/>
    protected override string Now => "@now";

    /// <inheritdoc/>
    protected override string InsertOrder => "rowid";

    /// <inheritdoc/>
    protected override string SkipLocked => "";

    /// <inheritdoc/>
    protected internal override IReadOnlyList<string> EngineScripts => Scripts;

    /// <inheritdoc/>
    public override string InList(string column, string parameter) => $"{column} IN (SELECT value FROM json_each({parameter}))";

    /// <inheritdoc/>
    public override object ListValue(IReadOnlyCollection<string> values)
    {
        using var buffer = new MemoryStream();
        using (var json = new Utf8JsonWriter(buffer))
        {
            json.WriteStartArray();
            foreach (string value in values)
                json.WriteStringValue(value);
            json.WriteEndArray();
        }
        return System.Text.Encoding.UTF8.GetString(buffer.GetBuffer(), 0, (int)buffer.Length);
    }

    /// <inheritdoc/>
    public override SqlErrorKind Classify(Exception error) => error is not SqliteException sqlite ? SqlErrorKind.Other : sqlite.SqliteErrorCode switch
    {
        raw.SQLITE_BUSY or raw.SQLITE_LOCKED => SqlErrorKind.Transient,
        // A full volume also shows as an I/O error: the shared index that cannot grow, a quota, a sync that finds no room.
        raw.SQLITE_FULL or raw.SQLITE_IOERR => SqlErrorKind.DiskFull,
        raw.SQLITE_CONSTRAINT when sqlite.SqliteExtendedErrorCode is raw.SQLITE_CONSTRAINT_UNIQUE or raw.SQLITE_CONSTRAINT_PRIMARYKEY
            => SqlErrorKind.UniqueViolation,
        raw.SQLITE_CONSTRAINT when sqlite.SqliteExtendedErrorCode == raw.SQLITE_CONSTRAINT_FOREIGNKEY => SqlErrorKind.ForeignKeyViolation,
        raw.SQLITE_CORRUPT or raw.SQLITE_NOTADB or raw.SQLITE_READONLY or raw.SQLITE_CANTOPEN or raw.SQLITE_PERM or raw.SQLITE_NOMEM
            or raw.SQLITE_PROTOCOL or raw.SQLITE_INTERRUPT or raw.SQLITE_NOLFS => SqlErrorKind.Broken,
        _ => SqlErrorKind.Other,
    };

    /// <inheritdoc/>
    public override ValueTask<T> ReadAsync<T>(TimeProvider time, Func<SqlSession, T> work, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(work);
        cancellationToken.ThrowIfCancellationRequested();
        // The provider's asynchronous methods are synchronous: a reader takes an idle connection and gives it back.
        if (!_readers.TryTake(out SqlSession? session))
            session = Guarded(() => new SqlSession(Interlocked.Exchange(ref _prepared, null) ?? OpenConnection(), this, time));
        try
        {
            T result = work(session);
            _readers.Add(session);
            return ValueTask.FromResult(result);
        }
        catch (SqliteException e)
        {
            session.Dispose();
            throw Translate(e);
        }
        catch
        {
            session.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    protected internal override WriterSession OpenWriter(TimeProvider time)
    {
        FileLock commitLock = FileLock.Open(Path + ".lock");
        try
        {
            return new SqliteWriterSession(Guarded(OpenConnection), this, time, commitLock);
        }
        catch
        {
            commitLock.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    protected internal override IDisposable? TryLockExecutor(string executorId)
    {
        FileLock life = FileLock.Open(LifeLockPath(executorId));
        if (life.TryTake())
            return new LifeLock(life, LifeLockPath(executorId));
        life.Dispose();
        return null;
    }

    /// <inheritdoc/>
    protected internal override bool IsExecutorDead(string executorId)
    {
        string path = LifeLockPath(executorId);
        if (!File.Exists(path))
            return true;
        using FileLock life = FileLock.Open(path);
        bool free = life.TryTake();
        if (free)
            life.Release();
        return free;
    }

    /// <inheritdoc/>
    protected internal override void ForgetExecutor(string executorId)
    {
        // Ids are never used again, so a file whose lock is free belongs to nobody.
        if (IsExecutorDead(executorId))
            File.Delete(LifeLockPath(executorId));
    }

    // A process that died between taking its lock and writing its row left a file that no row names.
    private void ForgetStrays()
    {
        string folder = System.IO.Path.GetDirectoryName(Path)!;
        foreach (string file in Directory.EnumerateFiles(folder, System.IO.Path.GetFileName(Path) + ".executor-*"))
        {
            // A young one may belong to a process that is about to lock it.
            if (File.GetLastWriteTimeUtc(file) < TimeProvider.System.GetUtcNow().UtcDateTime.AddMinutes(-1))
                ForgetExecutor(file[LifeLockPath("").Length..]);
        }
    }

    /// <inheritdoc/>
    protected internal override void Nudge() => _nudges.Send();

    /// <inheritdoc/>
    protected internal override IDisposable Listen(Action onSignal) => _nudges.Listen(onSignal);

    /// <inheritdoc/>
    public override ValueTask DisposeAsync()
    {
        if (_disposed)
            return ValueTask.CompletedTask;
        _disposed = true;
        Interlocked.Exchange(ref _prepared, null)?.Dispose();
        while (_readers.TryTake(out SqlSession? reader))
            reader.Dispose();
        _nudges.Dispose();
        return ValueTask.CompletedTask;
    }

    private string LifeLockPath(string executorId) => $"{Path}.executor-{executorId}";

    private SqliteConnection OpenConnection()
    {
        var connection = new SqliteConnection(new SqliteConnectionStringBuilder
        {
            DataSource = Path,
            Mode = SqliteOpenMode.ReadWriteCreate,
            Pooling = false,
            DefaultTimeout = 30,
        }.ToString());
        try
        {
            connection.Open();
            sqlite3 handle = connection.Handle!;
            // Readers included: the last one to close would otherwise checkpoint outside the commit lock.
            _ = raw.sqlite3_db_config(handle, NoCheckpointOnClose, 1, out _);
            using SqliteCommand pragmas = connection.CreateCommand();
            pragmas.CommandText = """
                PRAGMA synchronous = FULL;
                PRAGMA foreign_keys = ON;
                PRAGMA wal_autocheckpoint = 0;
                PRAGMA mmap_size = 0;
                PRAGMA temp_store = MEMORY;
                PRAGMA cache_size = -16000;
                """;
            pragmas.ExecuteNonQuery();
            return connection;
        }
        catch
        {
            connection.Dispose();
            throw;
        }
    }

    // A file is prepared under the commit lock, so that two processes never switch the journal mode at once. One that was prepared
    // before is opened without it: whoever is stopped in the middle of a commit must not keep others from looking.
    private bool Prepare()
    {
        using FileLock commitLock = FileLock.Open(Path + ".lock");
        if (IsPrepared())
        {
            if (commitLock.TryTake())
            {
                ForgetStrays();
                commitLock.Release();
            }
            return true;
        }
        commitLock.Take();
        try
        {
            ForgetStrays();
            if (!IsPrepared())
                PrepareLocked();
            return true;
        }
        catch
        {
            _prepared?.Dispose();
            throw;
        }
        finally
        {
            commitLock.Release();
        }
    }

    // The id is written after the journal mode: who sees it sees a prepared file.
    private bool IsPrepared()
    {
        if (new FileInfo(Path) is not { Exists: true, Length: > 0 })
            return false;
        _prepared ??= OpenConnection();
        using SqliteCommand command = _prepared.CreateCommand();
        command.CommandText = "PRAGMA application_id";
        if ((long)command.ExecuteScalar()! == ApplicationId)
            return true;
        command.CommandText = "SELECT count(*) FROM sqlite_master";
        if ((long)command.ExecuteScalar()! > 0)
        {
            _prepared.Dispose();
            throw new DroverException(ErrorCode.Database, $"{Path} is a SQLite file of another program: name another file with --database");
        }
        return false;
    }

    private void PrepareLocked()
    {
        if (!File.Exists(Path) && !OperatingSystem.IsWindows())
        {
            // Created here so that the file is private from its first byte; SQLite gives its journals the same mode.
            using var file = new FileStream(Path, new FileStreamOptions
            {
                Mode = FileMode.OpenOrCreate,
                Access = FileAccess.ReadWrite,
                UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
            });
        }
        _prepared ??= OpenConnection();
        using SqliteCommand command = _prepared.CreateCommand();
        command.CommandText = $"PRAGMA journal_mode = WAL; PRAGMA application_id = {ApplicationId};";
        command.ExecuteNonQuery();
    }

    private T Guarded<T>(Func<T> open)
    {
        try
        {
            return open();
        }
        catch (SqliteException e)
        {
            throw Translate(e);
        }
        catch (Exception e) when (e is UnauthorizedAccessException or IOException)
        {
            throw new DroverException(ErrorCode.Database, $"cannot open the database {Path}: {e.Message.ReplaceLineEndings(" ")}", e);
        }
    }

    private DroverException Translate(SqliteException e) => new(ErrorCode.Database, e.SqliteErrorCode switch
    {
        raw.SQLITE_NOTADB or raw.SQLITE_CORRUPT => $"{Path} is not a readable database: restore a backup or move the file away",
        raw.SQLITE_READONLY or raw.SQLITE_CANTOPEN or raw.SQLITE_PERM => $"the database {Path} cannot be written: check the folder's permissions",
        raw.SQLITE_FULL => $"the volume that holds {Path} is full: free some space and run `drover resume`",
        _ => $"the database {Path} answered: {e.Message.ReplaceLineEndings(" ")}",
    }, e);

    private static string ReadScript(string name)
    {
        Assembly assembly = typeof(SqliteDialect).Assembly;
        using Stream stream = assembly.GetManifestResourceStream($"Drover.Workflows.Sqlite.Migrations.{name}")
            ?? throw new InvalidOperationException($"the script {name} is not embedded");
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }

    private sealed class LifeLock(FileLock file, string path) : IDisposable
    {
        public void Dispose()
        {
            // Removed while still held: nobody can take over an executor that stopped by itself and left nothing.
            File.Delete(path);
            file.Dispose();
        }
    }
}
